//! Places at which a test may have the process end, as `kill -9` would end it there, or have something fail.
//!
//! Only with the feature `failpoints`; without it there is an empty function, and nothing is left of it.

/// Ends the process if a test wants it to end here: if the directory that `VNODE_FAILPOINTS` names has a file of that name. The file
/// says how often the place is passed before; it is gone when the process is, so that the next one lives.
#[cfg(feature = "failpoints")]
pub fn failpoint(name: &str) {
    let Some(directory) = std::env::var_os("VNODE_FAILPOINTS") else {
        return;
    };
    let path = std::path::Path::new(&directory).join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return;
    };
    match text.trim().parse::<u64>() {
        Ok(passes) if passes > 0 => {
            drop(std::fs::write(&path, (passes - 1).to_string()));
        }
        _ => {
            drop(std::fs::remove_file(&path));
            // Nothing is unwound, flushed or said to anybody.
            std::process::abort();
        }
    }
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn failpoint(_name: &str) {}

/// Whether a test wants what is done here to fail: as often as the file of that name says.
#[cfg(feature = "failpoints")]
pub fn fails(name: &str) -> bool {
    let Some(directory) = std::env::var_os("VNODE_FAILPOINTS") else {
        return false;
    };
    let path = std::path::Path::new(&directory).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let left = text.trim().parse::<u64>().unwrap_or(0);
    let fails = left > 0;
    if fails {
        drop(std::fs::write(&path, (left - 1).to_string()));
    }
    fails
}

/// No.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn fails(_name: &str) -> bool {
    false
}
