//! The store of a guest at work: the host's.

use crate::bindings::vnode::host::store as host;
use crate::store::{Object, Projection, Row, Scan};
use crate::{Error, Result};

pub(crate) fn get(key: &[u8]) -> Result<Option<Vec<u8>>> {
    host::get(key).map_err(Error::from)
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Result<()> {
    host::put(key, value).map_err(Error::from)
}

pub(crate) fn delete(key: &[u8]) -> Result<bool> {
    host::delete(key).map_err(Error::from)
}

pub(crate) fn scan(cursor: Option<&[u8]>, limit: u32, projection: Projection) -> Result<Scan> {
    let projection = match projection {
        Projection::Keys => host::Projection::Keys,
        Projection::Rows => host::Projection::Rows,
    };
    let page = host::scan(cursor, limit, projection).map_err(Error::from)?;
    let rows = page.rows.into_iter();
    Ok(Scan {
        rows: rows
            .map(|host::Row { key, value }| Row { key, value })
            .collect(),
        next: page.next,
    })
}

pub(crate) fn count() -> Result<u64> {
    host::count().map_err(Error::from)
}

pub(crate) fn get_object(key: &[u8]) -> Result<Object> {
    let host::Object { context, values } = host::get_object(key).map_err(Error::from)?;
    Ok(Object { context, values })
}

pub(crate) fn put_object(key: &[u8], value: &[u8], context: &[u8]) -> Result<Vec<u8>> {
    host::put_object(key, value, context).map_err(Error::from)
}
