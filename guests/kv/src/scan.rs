//! The commands that look at the whole ring, one page at a time.

use guest_sdk::prelude::*;

use crate::glob;

/// Rows of one page of a command that has no COUNT.
const PAGE_ROWS: u32 = 1000;
/// COUNT of SCAN when the client does not say, as in Redis.
const SCAN_COUNT: u32 = 10;
/// Most that a client gets for COUNT; it is a hint in Redis too.
const SCAN_COUNT_MAX: u32 = 1000;

/// `KEYS [pattern]`
pub(crate) fn keys(command: &Command, cursor: Option<&[u8]>) -> Result<Page> {
    if command.words() > 2 {
        return Err(command.wrong_arity());
    }
    matching_keys(cursor, PAGE_ROWS, command.get(1))
}

/// `VALUES`
pub(crate) fn values(cursor: Option<&[u8]>) -> Result<Page> {
    let scan = store::scan(cursor, PAGE_ROWS, Projection::Rows)?;
    Ok(Page::new(
        scan.rows.into_iter().map(|row| row.value),
        scan.next,
    ))
}

/// `DBSIZE`
pub(crate) fn size() -> Result<Page> {
    let count = i64::try_from(store::count()?).unwrap_or(i64::MAX);
    Ok(Page::last([count]))
}

/// `CLEAR`
pub(crate) fn clear(cursor: Option<&[u8]>) -> Result<Page> {
    let scan = store::scan(cursor, PAGE_ROWS, Projection::Keys)?;
    for row in scan.rows {
        store::delete(row.key)?;
    }
    Ok(Page::new([Reply::ok()], scan.next))
}

/// `SCAN cursor [MATCH pattern] [COUNT count]`: one page is one call, and the host turns the client's cursor into ours.
pub(crate) fn page(command: &Command, cursor: Option<&[u8]>) -> Result<Page> {
    let mut count = SCAN_COUNT;
    let mut pattern = None;
    let mut position = 2;
    while position < command.words() {
        let value = position + 1;
        if command.get(value).is_none() {
            return Err(Error::syntax());
        } else if command.is(position, "COUNT") {
            let asked = command.int(value)?;
            if asked < 1 {
                return Err(Error::syntax());
            }
            count = u32::try_from(asked).unwrap_or(SCAN_COUNT_MAX).min(SCAN_COUNT_MAX);
        } else if command.is(position, "MATCH") {
            pattern = command.get(value);
        } else {
            return Err(Error::syntax());
        }
        position += 2;
    }
    matching_keys(cursor, count, pattern)
}

fn matching_keys(cursor: Option<&[u8]>, limit: u32, pattern: Option<&[u8]>) -> Result<Page> {
    let scan = store::scan(cursor, limit, Projection::Keys)?;
    let keys = scan.rows.into_iter().map(|row| row.key);
    let matching = keys.filter(|key| pattern.is_none_or(|pattern| glob::matches(pattern, key)));
    Ok(Page::new(matching, scan.next))
}
