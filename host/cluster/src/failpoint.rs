//! Places at which a test may have a node end, as `kill -9` would end it there, or have something fail.
//!
//! Nothing happens there unless [`arm`] was called, which only the program `host-faults` does, or a simulator listens (feature `sim`).

use std::path::PathBuf;
use std::sync::OnceLock;

#[cfg(feature = "sim")]
pub use self::simulated::tell_this_thread;

/// Where tests say what is to happen.
static WISHES: OnceLock<PathBuf> = OnceLock::new();

/// Has this process do at each place what the file of the place's name in that directory says. The first call counts.
pub fn arm(directory: PathBuf) {
    WISHES.get_or_init(|| directory);
}

/// Ends the process, or lets the simulator know that a node is here, if a test wants that.
///
/// The file of that name says how often the place is passed before; it is gone when the process is, so that the next one lives.
pub fn failpoint(name: &str) {
    #[cfg(feature = "sim")]
    simulated::tell(name);
    let Some(path) = WISHES.get().map(|directory| directory.join(name)) else {
        return;
    };
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
pub fn fails(name: &str) -> bool {
    let Some(path) = WISHES.get().map(|directory| directory.join(name)) else {
        return false;
    };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let left = text.trim().parse::<u64>().unwrap_or(0);
    let fails = left > 0;
    if fails {
        drop(std::fs::write(&path, (left - 1).to_string()));
    }
    fails
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
