//! Aligned columns for people and for awk.
//!
//! Two spaces between columns, `-` for an empty cell, nothing behind the last one. No lines, no colours inside cells.

use std::fmt;

use bytesize::ByteSize;

/// A table in the making.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    indent: usize,
}

struct Column {
    title: &'static str,
    right: bool,
}

impl Table {
    /// A table with these titles; a title that starts with `>` aligns its column to the right.
    pub(super) fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| Column {
            title: title.strip_prefix('>').unwrap_or(title),
            right: title.starts_with('>'),
        };
        Self {
            columns: titles.iter().map(column).collect(),
            rows: Vec::new(),
            indent: 0,
        }
    }

    /// Puts spaces before each line.
    pub(super) fn indented(self, indent: usize) -> Self {
        Self { indent, ..self }
    }

    /// Adds a line. Cells beyond the columns are dropped, missing ones are empty.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A line break in a cell would be two rows to awk.
        let tidy = |cell: String| {
            if cell.is_empty() {
                "-".into()
            } else {
                cell.replace(['\n', '\r'], " ")
            }
        };
        self.rows.push(cells.into_iter().map(tidy).collect());
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, widths: &[usize], cells: &[&str]) -> fmt::Result {
        let mut line = " ".repeat(self.indent);
        for ((column, width), cell) in self.columns.iter().zip(widths).zip(cells) {
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column.right {
                (gap.as_str(), "")
            } else {
                ("", gap.as_str())
            };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .map(|column| column.title.chars().count())
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        if titles.iter().any(|title| !title.is_empty()) {
            self.line(f, &widths, &titles)?;
        }
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.line(f, &widths, &cells)?;
        }
        Ok(())
    }
}

/// `71.2 KiB`, as people read sizes.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// The text of a number that may be missing.
pub(super) fn optional(value: Option<impl fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// `1 change`, `2 changes`.
pub(super) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A share of one as ` 31.3`: five columns, a half rounded up as the tutorials do.
pub(super) fn percent(share: f64) -> String {
    format!("{:5.1}", (share * 1000.0).round() / 10.0)
}

/// A title centred in a line of `=`, as in the tutorials.
pub(super) fn banner(title: &str, width: usize) -> String {
    let sides = width.saturating_sub(title.chars().count() + 2);
    let left = sides / 2;
    format!(
        "{} {title} {}\n",
        "=".repeat(left),
        "=".repeat(sides - left)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(&["NODE", ">OBJECTS", "STATE"]).indented(1);
        table.row(["a".into(), "12".into(), "ready".into()]);
        table.row(["a-long-näme".into(), "12345678".into(), String::new()]);
        table.row(["two\nlines".into()]);
        assert_eq!(
            table.to_string(),
            concat!(
                " NODE          OBJECTS  STATE\n",
                " a                  12  ready\n",
                " a-long-näme  12345678  -\n",
                " two lines\n",
            )
        );
    }

    #[test]
    fn a_table_without_titles_has_no_first_line() {
        let mut table = Table::new(&[">", ""]);
        table.row(["1".into(), "b".into()]);
        table.row(["10".into(), "c".into()]);
        assert_eq!(table.to_string(), " 1  b\n10  c\n");
    }

    #[test]
    fn banners_are_those_of_the_tutorials() {
        let membership =
            "================================= Membership ==================================\n";
        assert_eq!(banner("Membership", 79), membership);
        assert_eq!(
            banner("Nodes", 79),
            "==================================== Nodes ====================================\n"
        );
        assert_eq!(
            banner("Ring", 79),
            "==================================== Ring =====================================\n"
        );
    }
}
