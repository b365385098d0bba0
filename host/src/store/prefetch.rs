//! The one hint to the processor that safe Rust has no word for yet.

/// Has the processor fetch what lies there, and does not wait for it.
#[expect(
    unsafe_code,
    reason = "a prefetch of a reference reads nothing and cannot fail; core::hint has it, but not in stable Rust"
)]
#[inline]
pub(super) fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
