//! The forms in which a test writes a command.

/// The words of a command: a line with spaces between them, or a list when a word has spaces or other bytes.
pub trait Words {
    /// The words, the name first.
    fn words(&self) -> Vec<Vec<u8>>;
}

impl Words for &str {
    fn words(&self) -> Vec<Vec<u8>> {
        self.split_whitespace()
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }
}

impl Words for String {
    fn words(&self) -> Vec<Vec<u8>> {
        self.as_str().words()
    }
}

impl<W: AsRef<[u8]>> Words for &[W] {
    fn words(&self) -> Vec<Vec<u8>> {
        self.iter().map(|word| word.as_ref().to_vec()).collect()
    }
}

impl<W: AsRef<[u8]>, const N: usize> Words for [W; N] {
    fn words(&self) -> Vec<Vec<u8>> {
        self.as_slice().words()
    }
}

impl<W: AsRef<[u8]>, const N: usize> Words for &[W; N] {
    fn words(&self) -> Vec<Vec<u8>> {
        self.as_slice().words()
    }
}
