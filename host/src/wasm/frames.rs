//! Where in the guest it happened: the functions that had been called when a call failed.

use std::fmt;

use wasmtime::{FrameInfo, WasmBacktrace};

/// Most functions that are kept.
const FRAMES_MAX: usize = 12;
/// Most of a function's name: it comes from the component.
const NAME_CHARS_MAX: usize = 160;
/// Most of a file's path.
const FILE_CHARS_MAX: usize = 80;
/// Functions with these beginnings tell how a panic is raised, not where.
const MACHINERY: [&str; 7] = [
    "std::", "core::", "alloc::", "abort", "rust_", "__rust", "dlmalloc",
];

/// Where the sources of Rust's standard library were when it was built.
const LIBRARY: &str = "/rustc/";

/// Functions, the innermost first, each with its file and line where the component brings them along. One without names has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames(Vec<String>);

impl Frames {
    /// What wasmtime has seen of the stack when a call failed.
    pub(super) fn of(error: &wasmtime::Error) -> Frames {
        let frames = error.downcast_ref::<WasmBacktrace>();
        let frames = frames.map(WasmBacktrace::frames).unwrap_or_default();
        Frames::from_calls(frames.iter().flat_map(calls))
    }

    fn from_calls<'a>(calls: impl Iterator<Item = Call<'a>>) -> Frames {
        let calls = calls.map(|call| (readable(call.function), call));
        let calls = calls.filter(|(name, _)| !name.is_empty());
        let calls = calls.skip_while(|(name, _)| is_machinery(name));
        let calls = calls.map(|(name, call)| match call.line {
            Some((file, line)) => format!("{name} ({}:{line})", short(file)),
            None => name,
        });
        Frames(calls.take(FRAMES_MAX).collect())
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

/// One function that had been called, as the component has it.
struct Call<'a> {
    function: &'a str,
    /// File and line.
    line: Option<(&'a str, u32)>,
}

/// The functions of a frame: several where the compiler has put one into another. Only the outermost has its whole name then. The
/// standard library's are left out: between a guest's own functions they say nothing.
fn calls(frame: &FrameInfo) -> Vec<Call<'_>> {
    let symbols = frame.symbols();
    let Some(outermost) = symbols.len().checked_sub(1) else {
        let line = None;
        let calls = frame.func_name().map(|function| Call { function, line });
        return calls.into_iter().collect();
    };
    let calls = symbols.iter().enumerate().filter_map(|(nth, symbol)| {
        let whole = frame.func_name().filter(|_| nth == outermost);
        Some(Call {
            function: whole.or_else(|| symbol.name().map(without_generics))?,
            line: symbol.file().zip(symbol.line()),
        })
    });
    let of_library = |call: &Call<'_>| call.line.is_some_and(|(file, _)| file.starts_with(LIBRARY));
    calls.filter(|call| !of_library(call)).collect()
}

/// `index` of `index<u8, usize>`.
fn without_generics(name: &str) -> &str {
    match name.find('<') {
        Some(at) if at > 0 => name.get(..at).unwrap_or(name),
        _ => name,
    }
}

/// A file's path from its crate's folder on: where that lies on the machine that built it says nothing here.
fn short(file: &str) -> String {
    let from = file.rfind("/src/").map_or(0, |source| {
        file.get(..source)
            .and_then(|before| before.rfind('/'))
            .map_or(0, |folder| folder + 1)
    });
    printable(file.get(from..).unwrap_or(file), FILE_CHARS_MAX)
}

fn is_machinery(name: &str) -> bool {
    MACHINERY.iter().any(|start| name.starts_with(start))
}

/// A name as its author wrote it, fit for one line of a log. One of another language than Rust stays as it is.
fn readable(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    printable(&name, NAME_CHARS_MAX)
}

fn printable(text: &str, chars_max: usize) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Frames {
        let line = None;
        Frames::from_calls(names.into_iter().map(|function| Call { function, line }))
    }

    #[test]
    fn a_line_is_told_by_its_path_in_the_crate() {
        let call = |function, file| Call {
            function,
            line: Some((file, 7)),
        };
        let calls = [
            call(
                "_ZN4hits6divide17hd0f1e83c9ae2e2eaE",
                "/home/me/hits/src/a/b.rs",
            ),
            call("handle", "src/lib.rs"),
            call("dispatch", "C:\\guest.js"),
        ];
        assert_eq!(
            Frames::from_calls(calls.into_iter()).to_string(),
            "hits::divide (hits/src/a/b.rs:7) < handle (src/lib.rs:7) < dispatch (C:\\guest.js:7)"
        );
    }

    #[test]
    fn names_from_debug_information_lose_their_generics() {
        assert_eq!(without_generics("index<u8, usize>"), "index");
        assert_eq!(
            without_generics("{closure#0}<hits::Counter>"),
            "{closure#0}"
        );
        assert_eq!(without_generics("<A as B>::c"), "<A as B>::c");
        assert_eq!(without_generics("main"), "main");
    }

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
        let backtrace = of_names(names);
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
        let backtrace = of_names(["a\n\u{1b}[31mb", &long]);
        let Frames(names) = backtrace;
        assert_eq!(names[0], "a[31mb");
        assert_eq!(names[1].len(), NAME_CHARS_MAX);
        let deep = of_names(std::iter::repeat_n("f", 100));
        assert_eq!(deep.0.len(), FRAMES_MAX);
    }
}
