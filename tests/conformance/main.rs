//! Guests of every kind against the real host: those that lie, those that attack, those in other languages.
//!
//! - [`guests`] builds what the tests need, and makes variants of it.
//! - [`files`] has what is no guest at all, [`start`] what fails before its first command.
//! - [`misdeeds`], [`replies`] and [`looping`] have guests that fail at work, and neighbours that must not notice.
//! - [`languages`] runs a guest in Python and one in JavaScript.
//! - [`kit`] runs `host check` on good guests and on bad ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod files;
mod guests;
mod kit;
mod languages;
mod looping;
mod misdeeds;
mod replies;
mod roles;
mod start;
