//! Places at which a test may have the process end, as `kill -9` would end it there.
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
