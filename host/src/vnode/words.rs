//! The words of a command.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

/// The words of a command, the name first: ranges of the buffer that they arrived in, shared with the other commands of
/// the same read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    buffer: Bytes,
    ranges: SmallVec<[Range<u32>; 3]>,
}

impl Words {
    /// Words that lie at `ranges` of `buffer`; a range outside it is an empty word.
    pub fn new(buffer: Bytes, ranges: &[Range<usize>]) -> Words {
        Words {
            buffer,
            ranges: ranges.iter().map(short).collect(),
        }
    }

    /// A single word.
    pub fn one(word: Bytes) -> Words {
        let ranges = std::iter::once(short(&(0..word.len()))).collect();
        Words {
            buffer: word,
            ranges,
        }
    }

    /// Words with a buffer of their own.
    pub fn copy<'a>(words: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Words {
        let words = words.into_iter();
        let mut buffer = Vec::with_capacity(words.clone().map(<[u8]>::len).sum());
        let mut ranges = SmallVec::new();
        for word in words {
            let start = buffer.len();
            buffer.extend_from_slice(word);
            ranges.push(short(&(start..buffer.len())));
        }
        Words {
            buffer: buffer.into(),
            ranges,
        }
    }

    /// How many words, the name included.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no word at all.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The word at `position`, 0 being the name; empty past the end.
    pub fn get(&self, position: usize) -> &[u8] {
        self.ranges
            .get(position)
            .map_or(b"", |range| self.slice(range))
    }

    /// The words after the name.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ranges.iter().skip(1).map(|range| self.slice(range))
    }

    /// Every word.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.ranges.iter().map(|range| self.slice(range))
    }

    /// Bytes of all words.
    pub fn bytes(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        self.buffer
            .get(range.start as usize..range.end as usize)
            .unwrap_or_default()
    }
}

/// Half the size: requests are moved often, and their buffers stay far below 4 GiB.
fn short(range: &Range<usize>) -> Range<u32> {
    let bound = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    bound(range.start)..bound(range.end)
}
