//! Where in the guest it happened: the functions that had been called when a call failed.

use std::fmt;

use wasmtime::WasmBacktrace;

/// Most functions that are kept.
const FRAMES_MAX: usize = 12;
/// Most of a function's name: it comes from the component.
const NAME_CHARS_MAX: usize = 160;
/// Functions with these beginnings tell how a panic is raised, not where.
const MACHINERY: [&str; 7] = [
    "std::", "core::", "alloc::", "abort", "rust_", "__rust", "dlmalloc",
];

/// Names of functions, the innermost first. A component without names has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames(Vec<String>);

impl Frames {
    /// What wasmtime has seen of the stack when a call failed.
    pub(super) fn of(error: &wasmtime::Error) -> Frames {
        let frames = error.downcast_ref::<WasmBacktrace>();
        let frames = frames.map(WasmBacktrace::frames).unwrap_or_default();
        Frames::from_names(frames.iter().filter_map(|frame| frame.func_name()))
    }

    fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Frames {
        let names = names.map(readable).filter(|name| !name.is_empty());
        let names = names.skip_while(|name| is_machinery(name));
        Frames(names.take(FRAMES_MAX).collect())
    }

    /// None when there is nothing to show.
    pub fn shown(&self) -> Option<&Frames> {
        (!self.0.is_empty()).then_some(self)
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" < "))
    }
}

fn is_machinery(name: &str) -> bool {
    MACHINERY.iter().any(|start| name.starts_with(start))
}

/// A name as its author wrote it, fit for one line of a log. One of another language than Rust stays as it is.
fn readable(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    let printable = name.chars().filter(|c| !c.is_control());
    printable.take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_where_the_guest_asked_for_trouble() {
        let names = [
            "abort",
            "_RNvCs4fqI2P2rA04_7___rustc17rust_begin_unwind",
            "_ZN4core9panicking9panic_fmt17h0123456789abcdefE",
            "_ZN4hits6divide17hd0f1e83c9ae2e2eaE",
            "_ZN57_$LT$hits..Counter$u20$as$u20$guest_sdk..vnode..Vnode$GT$6handle17h7f93dc3f7a495b1aE",
            "_ZN4core3ops8function6FnOnce9call_once17h0123456789abcdefE",
            "vnode:host/vnode@0.1.0#handle",
        ];
        let backtrace = Frames::from_names(names.into_iter());
        assert_eq!(
            backtrace.to_string(),
            "hits::divide < <hits::Counter as guest_sdk::vnode::Vnode>::handle < core::ops::function::FnOnce::call_once \
             < vnode:host/vnode@0.1.0#handle"
        );
        assert!(backtrace.shown().is_some());
        assert_eq!(Frames::default().shown(), None);
    }

    #[test]
    fn names_are_the_guests_and_so_they_are_bounded() {
        let long = "x".repeat(1000);
        let backtrace = Frames::from_names(["a\n\u{1b}[31mb", &long].into_iter());
        let Frames(names) = backtrace;
        assert_eq!(names[0], "a[31mb");
        assert_eq!(names[1].len(), NAME_CHARS_MAX);
        let deep = Frames::from_names(std::iter::repeat_n("f", 100));
        assert_eq!(deep.0.len(), FRAMES_MAX);
    }
}
