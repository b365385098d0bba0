//! Several replies of one command on their way to being one, as its descriptor says.

use super::Limits;
use crate::descriptor::Aggregate;
use crate::resp::value::Value;
use crate::resp::wire::ReplyLimits;
use crate::resp::{Protocol, write};
use crate::vnode::failure::Failure;
use crate::wasm::CoveragePage;

/// Several replies on their way to being one.
pub(super) struct Joined<'a> {
    aggregate: Aggregate,
    limits: &'a Limits,
    sum: i64,
    items: usize,
    bytes: Vec<u8>,
    first: Option<Value>,
}

impl<'a> Joined<'a> {
    pub(super) fn new(aggregate: Aggregate, limits: &'a Limits) -> Joined<'a> {
        Joined {
            aggregate,
            limits,
            sum: 0,
            items: 0,
            bytes: Vec::new(),
            first: None,
        }
    }

    /// Values that are there so far.
    pub(super) fn len(&self) -> usize {
        self.items
    }

    /// Adds one whole reply.
    pub(super) fn add(&mut self, reply: &[u8]) -> Result<(), Failure> {
        self.add_value(parse(reply)?)
    }

    /// Adds each member of an array.
    pub(super) fn add_each(&mut self, array: &[u8]) -> Result<(), Failure> {
        match parse(array)? {
            Value::Array(values) => values
                .into_iter()
                .try_for_each(|value| self.add_value(value)),
            other => self.add_value(other),
        }
    }

    fn add_value(&mut self, value: Value) -> Result<(), Failure> {
        match (self.aggregate, value) {
            (_, Value::Error { code, message }) => Err(Failure::Refused { code, message }),
            (Aggregate::Sum, Value::Int(number)) => {
                self.sum = self.sum.saturating_add(number);
                Ok(())
            }
            (Aggregate::Concat, Value::Array(values)) => {
                let mut items = Vec::new();
                for value in &values {
                    value.encode(Protocol::Resp3, &mut items);
                }
                self.append(&items, values.len())
            }
            (Aggregate::AllOk | Aggregate::Single | Aggregate::Cursor, value) => {
                self.first.get_or_insert(value);
                Ok(())
            }
            (Aggregate::Sum | Aggregate::Concat, _) => Err(Failure::Usage(format!(
                "a reply does not fit the aggregate {:?} that the guest declared",
                self.aggregate
            ))),
        }
    }

    /// Adds one page of a vnode.
    pub(super) fn add_page(&mut self, page: &CoveragePage) -> Result<(), Failure> {
        match self.aggregate {
            Aggregate::Concat | Aggregate::Cursor => self.append(&page.items, page.count),
            Aggregate::Sum | Aggregate::AllOk | Aggregate::Single => {
                let mut values = Vec::new();
                write::array(&mut values, page.count);
                values.extend_from_slice(&page.items);
                self.add_each(&values)
            }
        }
    }

    /// Adds so many values that lie back to back.
    pub(super) fn append(&mut self, items: &[u8], count: usize) -> Result<(), Failure> {
        self.items += count;
        self.bytes.extend_from_slice(items);
        if self.items > self.limits.coverage_items_max
            || self.bytes.len() > self.limits.coverage_bytes_max
        {
            return Err(Failure::TooBig(format!(
                "the reply passes {} items or {} bytes (coverage_items_max, coverage_bytes_max); use SCAN, or HTTP with \"stream\": true",
                self.limits.coverage_items_max, self.limits.coverage_bytes_max
            )));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.aggregate {
            Aggregate::Sum => write::int(&mut out, self.sum),
            Aggregate::Concat => {
                write::array(&mut out, self.items);
                out.extend_from_slice(&self.bytes);
            }
            Aggregate::AllOk | Aggregate::Single | Aggregate::Cursor => match self.first {
                Some(first) => first.encode(Protocol::Resp3, &mut out),
                None => write::ok(&mut out),
            },
        }
        out
    }
}

fn parse(reply: &[u8]) -> Result<Value, Failure> {
    Value::parse(reply, &ReplyLimits::default())
        .map_err(|error| Failure::Usage(format!("a reply cannot be read: {error}")))
}
