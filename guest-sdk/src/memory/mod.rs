//! The store of a native build: rows in memory with the host's semantics, for tests.
//!
//! Each thread has its own, so tests that run side by side do not mix. Scans go by a hash, as on the ring, so that no
//! test passes because keys happened to come sorted.

mod object;

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::store::{Object, Projection, Row, Scan};
use crate::{Error, Merge, Result};

/// The host's default limits.
const KEY_BYTES_MAX: usize = 4096;
const VALUE_BYTES_MAX: usize = 1024 * 1024;

thread_local! {
    static ROWS: RefCell<Memory> = RefCell::new(Memory::new(0, Merge::Siblings));
    static STAMP: RefCell<u64> = const { RefCell::new(0) };
}

/// A position on the ring and the key there.
type Place = (u64, Vec<u8>);

/// The rows of one vnode.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    rows: BTreeMap<Place, object::Object>,
    actor: u64,
    merge: Merge,
    access: Access,
    /// What the rows of the running command were before it.
    undo: Vec<(Place, Option<object::Object>)>,
}

/// What the running command may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: it is declared to read.
    Nothing,
    /// Keys that hash where its own do.
    Near(Vec<u64>),
    /// Everything.
    All,
}

/// Runs `f` with `memory` as the store of this thread.
pub(crate) fn within<R>(memory: &mut Memory, f: impl FnOnce() -> R) -> R {
    ROWS.with_borrow_mut(|rows| std::mem::swap(rows, memory));
    let result = f();
    ROWS.with_borrow_mut(|rows| std::mem::swap(rows, memory));
    result
}

pub(crate) fn get(key: &[u8]) -> Result<Option<Vec<u8>>> {
    ROWS.with_borrow(|memory| Ok(memory.get(key)))
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Result<()> {
    ROWS.with_borrow_mut(|memory| {
        memory.write(key, value, |object, actor| {
            object.put(actor, stamp(), value)
        })
    })
}

pub(crate) fn delete(key: &[u8]) -> Result<bool> {
    ROWS.with_borrow_mut(|memory| {
        let had = memory.get(key).is_some();
        memory.write(key, &[], |object, _| object.delete())?;
        Ok(had)
    })
}

pub(crate) fn scan(cursor: Option<&[u8]>, limit: u32, projection: Projection) -> Result<Scan> {
    ROWS.with_borrow(|memory| memory.scan(cursor, limit, projection))
}

pub(crate) fn count() -> Result<u64> {
    ROWS.with_borrow(|memory| Ok(memory.live().count() as u64))
}

pub(crate) fn get_object(key: &[u8]) -> Result<Object> {
    ROWS.with_borrow(|memory| {
        let object = memory.rows.get(&place(key));
        Ok(object.map_or_else(Object::default, |object| Object {
            context: object.context(),
            values: object.values().cloned().collect(),
        }))
    })
}

pub(crate) fn put_object(key: &[u8], value: &[u8], context: &[u8]) -> Result<Vec<u8>> {
    ROWS.with_borrow_mut(|memory| {
        memory.write(key, value, |object, actor| {
            object.put_seen(actor, stamp(), value, context)
        })?
    })
}

impl Memory {
    pub(crate) fn new(actor: u64, merge: Merge) -> Self {
        Self {
            rows: BTreeMap::new(),
            actor,
            merge,
            access: Access::All,
            undo: Vec::new(),
        }
    }

    /// Begins a command.
    pub(crate) fn begin(&mut self, access: Access) {
        self.access = access;
        self.undo.clear();
    }

    /// Ends a command; what it wrote goes unless `keep`.
    pub(crate) fn end(&mut self, keep: bool) {
        self.access = Access::All;
        for (place, before) in self.undo.drain(..).rev() {
            match before {
                _ if keep => {}
                Some(object) => drop(self.rows.insert(place, object)),
                None => drop(self.rows.remove(&place)),
            }
        }
    }

    /// Takes in what another vnode of the same keys has.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (place, theirs) in &other.rows {
            let mine = self.rows.entry(place.clone()).or_default();
            mine.merge(theirs);
            if matches!(self.merge, Merge::LastWrite | Merge::Nothing) {
                mine.keep_latest();
            }
        }
    }

    /// The rows by key, with the value that `get` answers.
    pub(crate) fn sorted(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let live = self.live().map(|(_, key)| key);
        live.filter_map(|key| Some((key.clone(), self.get(key)?)))
            .collect()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let object = self.rows.get(&place(key))?;
        let mut values = object.values();
        match self.merge {
            Merge::Custom(join) if values.len() > 1 => {
                Some(join(key, &values.cloned().collect::<Vec<_>>()))
            }
            _ => values.next().cloned(),
        }
    }

    fn live(&self) -> impl Iterator<Item = &Place> {
        self.rows
            .iter()
            .filter(|(_, object)| object.is_live())
            .map(|(place, _)| place)
    }

    fn write<R>(
        &mut self,
        key: &[u8],
        value: &[u8],
        f: impl FnOnce(&mut object::Object, u64) -> R,
    ) -> Result<R> {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(Error::new(
                "TOOBIG",
                format!("a key may have {KEY_BYTES_MAX} bytes and a value {VALUE_BYTES_MAX}"),
            ));
        }
        let place = place(key);
        match &self.access {
            Access::Nothing => {
                return Err("this command is declared to read, so it may not write".into());
            }
            Access::Near(hashes) if !hashes.contains(&place.0) => {
                return Err(Error::err(format!(
                    "key '{}' is stored elsewhere; a command writes its own keys and those with the same {{tag}}",
                    key.escape_ascii()
                )));
            }
            _ => {}
        }
        self.undo
            .push((place.clone(), self.rows.get(&place).cloned()));
        let object = self.rows.entry(place).or_default();
        let result = f(object, self.actor);
        if matches!(self.merge, Merge::LastWrite | Merge::Nothing) {
            object.keep_latest();
        }
        Ok(result)
    }

    fn scan(&self, cursor: Option<&[u8]>, limit: u32, projection: Projection) -> Result<Scan> {
        let after = cursor.map(|cursor| {
            let (hash, key) = cursor
                .split_first_chunk()
                .ok_or("the cursor is not one of this host's")?;
            Ok::<Place, Error>((u64::from_be_bytes(*hash), key.to_vec()))
        });
        let after = after.transpose()?;
        let mut places = self
            .live()
            .filter(|place| after.as_ref().is_none_or(|after| *place > after))
            .peekable();
        let mut page = Scan::default();
        let mut last = None;
        for place in places.by_ref().take(limit.max(1) as usize) {
            let value = match projection {
                Projection::Keys => Vec::new(),
                Projection::Rows => self.get(&place.1).unwrap_or_default(),
            };
            page.rows.push(Row {
                key: place.1.clone(),
                value,
            });
            last = Some(place);
        }
        if places.peek().is_some() {
            page.next = last.map(|(hash, key)| [&hash.to_be_bytes()[..], key].concat());
        }
        Ok(page)
    }
}

/// The key's position on the ring; keys with the same tag share it.
pub(crate) fn hash(key: &[u8]) -> u64 {
    let tagged = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    tagged
        .unwrap_or(key)
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, fnv)
}

fn place(key: &[u8]) -> Place {
    (hash(key), key.to_vec())
}

/// A clock that never stands still, so that of two writes in a test one is the latest.
fn stamp() -> u64 {
    STAMP.with_borrow_mut(|stamp| {
        *stamp += 1;
        *stamp
    })
}
