//! Places at which a test may have a node end, as `kill -9` would end it there, or have something fail.
//!
//! Only with the feature `failpoints`, which ends the process, or `sim`, which tells the simulator. Without them there is an empty
//! function, and nothing is left of it.

#[cfg(feature = "sim")]
pub use self::simulated::tell_this_thread;

/// Ends the process, or lets the simulator know that a node is here, if a test wants that.
#[cfg(any(feature = "failpoints", feature = "sim"))]
pub fn failpoint(name: &str) {
    #[cfg(feature = "failpoints")]
    end_process(name);
    #[cfg(feature = "sim")]
    simulated::tell(name);
}

/// Nothing.
#[cfg(not(any(feature = "failpoints", feature = "sim")))]
#[inline(always)]
pub fn failpoint(_name: &str) {}

/// Ends the process if the directory that `VNODE_FAILPOINTS` names has a file of that name. The file says how often the place is
/// passed before; it is gone when the process is, so that the next one lives.
#[cfg(feature = "failpoints")]
fn end_process(name: &str) {
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

#[cfg(feature = "sim")]
mod simulated {
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Who is told of each place that a node comes to.
    type Told = Rc<dyn Fn(&str)>;

    thread_local! {
        static TOLD: RefCell<Option<Told>> = const { RefCell::new(None) };
    }

    /// Has somebody told of each place that a node on this thread comes to; with `None`, nobody. The node goes on after it: it is
    /// for the simulator to see that nothing which it does from then on reaches anybody.
    pub fn tell_this_thread(told: Option<Rc<dyn Fn(&str)>>) {
        TOLD.set(told);
    }

    pub(super) fn tell(name: &str) {
        if let Some(told) = TOLD.with_borrow(Option::clone) {
            told(name);
        }
    }
}
