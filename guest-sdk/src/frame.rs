//! The store as the batch door sees it: the values of one command's declared keys, and what the command does to them.
//!
//! Everything else defers the command: the host runs it again through the other door. While no frame is open, the
//! store's functions go to the host.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use crate::{Bytes, Error, Reply, Result, resp};

thread_local! {
    static FRAME: RefCell<Frame> = const { RefCell::new(Frame::closed()) };
}

/// Most memory kept for the next frame's writes; a large value must not stay for the instance's life.
const WRITTEN_BYTES_KEPT: usize = 64 * 1024;

/// One command's declared keys. Its vectors are kept from frame to frame, so a frame allocates nothing.
pub(crate) struct Frame {
    /// What the ranges point into; none while no frame is open.
    buffer: Option<Rc<Vec<u8>>>,
    slots: Vec<Slot>,
    /// The values put, one after another.
    written: Vec<u8>,
    may_write: bool,
    deferred: bool,
}

struct Slot {
    key: Range<usize>,
    value: Value,
    effect: Effect,
}

/// What the host sent for a key.
pub(crate) enum Value {
    Absent,
    Present(Range<usize>),
    /// Nothing, because the command is blind.
    Unsent,
}

enum Effect {
    None,
    Put(Range<usize>),
    Delete,
}

/// Runs `f` on the open frame, if one is.
pub(crate) fn with<R>(f: impl FnOnce(&mut Frame) -> R) -> Option<R> {
    FRAME.with_borrow_mut(|frame| frame.buffer.is_some().then(|| f(frame)))
}

/// Opens a frame for one command; its keys follow with [`Frame::add`].
pub(crate) fn open<R>(buffer: &Rc<Vec<u8>>, may_write: bool, f: impl FnOnce(&mut Frame) -> R) -> R {
    FRAME.with_borrow_mut(|frame| {
        frame.buffer = Some(Rc::clone(buffer));
        frame.slots.clear();
        frame.written.clear();
        frame.written.shrink_to(WRITTEN_BYTES_KEPT);
        frame.may_write = may_write;
        frame.deferred = false;
        f(frame)
    })
}

/// Closes the frame and appends the answer of its command.
pub(crate) fn close(result: Result<Reply>, answers: &mut Vec<u8>) {
    FRAME.with_borrow_mut(|frame| {
        frame.buffer = None;
        match result {
            _ if frame.deferred => answers.push(2),
            Ok(reply) => {
                answers.push(0);
                frame.effects(answers);
                let at = answers.len();
                answers.extend_from_slice(&[0; 4]);
                resp::write(&reply, answers);
                let length = length(answers.len().saturating_sub(at).saturating_sub(4));
                if let Some(place) = answers.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                    *place = length;
                }
            }
            Err(error) => {
                answers.push(1);
                bytes(error.code().as_bytes(), answers);
                bytes(error.message().as_bytes(), answers);
            }
        }
    });
}

impl Frame {
    const fn closed() -> Self {
        Self {
            buffer: None,
            slots: Vec::new(),
            written: Vec::new(),
            may_write: false,
            deferred: false,
        }
    }

    /// Adds a declared key and what the store has under it.
    pub(crate) fn add(&mut self, key: Range<usize>, value: Value) {
        self.slots.push(Slot {
            key,
            value,
            effect: Effect::None,
        });
    }

    /// Marks the command as deferred. Whatever it answers, the host runs it through the other door.
    pub(crate) fn defer(&mut self) -> Error {
        self.deferred = true;
        Error::err("deferred")
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        let at = self.find(key)?;
        let (Some(slot), Some(buffer)) = (self.slots.get(at), &self.buffer) else {
            return Ok(None);
        };
        Ok(match (&slot.effect, &slot.value) {
            (Effect::None, Value::Present(range)) => Some(Bytes::part(buffer, range.clone())),
            (Effect::None, Value::Absent) | (Effect::Delete, _) => None,
            (Effect::None, Value::Unsent) => return Err(self.defer()),
            (Effect::Put(range), _) => self.written.get(range.clone()).map(Bytes::from),
        })
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let at = self.find_to_write(key)?;
        let start = self.written.len();
        self.written.extend_from_slice(value);
        let range = start..self.written.len();
        if let Some(slot) = self.slots.get_mut(at) {
            slot.effect = Effect::Put(range);
        }
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<bool> {
        let at = self.find_to_write(key)?;
        let Some(slot) = self.slots.get_mut(at) else {
            return Ok(false);
        };
        let had = match (&slot.effect, &slot.value) {
            (Effect::None, Value::Present(_)) | (Effect::Put(_), _) => true,
            (Effect::None, Value::Absent) | (Effect::Delete, _) => false,
            (Effect::None, Value::Unsent) => return Err(self.defer()),
        };
        if had {
            slot.effect = Effect::Delete;
        }
        Ok(had)
    }

    /// A write by a command that may not write is deferred too: the host has the words for refusing it.
    fn find_to_write(&mut self, key: &[u8]) -> Result<usize> {
        if self.may_write {
            self.find(key)
        } else {
            Err(self.defer())
        }
    }

    /// The first slot of `key`, so a key given twice has one effect. Nearly all commands have one key.
    fn find(&mut self, key: &[u8]) -> Result<usize> {
        match (0..self.slots.len()).find(|at| self.is_at(*at, key)) {
            Some(at) => Ok(at),
            None => Err(self.defer()),
        }
    }

    fn is_at(&self, at: usize, key: &[u8]) -> bool {
        let buffer = self.buffer.as_ref();
        let mine = self
            .slots
            .get(at)
            .zip(buffer)
            .and_then(|(slot, buffer)| buffer.get(slot.key.clone()));
        mine == Some(key)
    }

    fn effects(&self, answers: &mut Vec<u8>) {
        let written = || {
            self.slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| !matches!(slot.effect, Effect::None))
        };
        answers.extend_from_slice(&short(written().count()));
        for (at, slot) in written() {
            answers.extend_from_slice(&short(at));
            match &slot.effect {
                Effect::Put(range) => {
                    answers.push(1);
                    bytes(self.written.get(range.clone()).unwrap_or_default(), answers);
                }
                Effect::None | Effect::Delete => answers.push(0),
            }
        }
    }
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&length(bytes.len()));
    out.extend_from_slice(bytes);
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Positions of keys came as 16 bits, so they fit.
fn short(position: usize) -> [u8; 2] {
    u16::try_from(position).unwrap_or(u16::MAX).to_le_bytes()
}
