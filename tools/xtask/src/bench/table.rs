//! Tables, for a terminal and as Markdown.

/// A table: a heading, and rows of as many cells. The first column is text, the
/// others are numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            heading: heading.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.heading.len());
        self.rows.push(cells.into());
    }

    /// Whether there are no rows.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let lines = || std::iter::once(&self.heading).chain(&self.rows);
        let width = |column: usize| lines().map(|row| row[column].chars().count()).max();
        (0..self.heading.len())
            .map(|column| width(column).unwrap_or(0))
            .collect()
    }

    /// In columns, with a line end after each row.
    #[must_use]
    pub(super) fn text(&self) -> String {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, &width))| match column {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            line.trim_end().to_owned() + "\n"
        };
        std::iter::once(&self.heading)
            .chain(&self.rows)
            .map(line)
            .collect()
    }

    /// As Markdown.
    #[must_use]
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = (0..self.heading.len())
            .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        let mut text = line(&self.heading) + &line(&rule);
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}

/// A number with commas between thousands.
#[must_use]
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as per cent, with one digit behind the point.
#[must_use]
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A number of something, or a dash.
#[must_use]
pub(super) fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["who", "reads"]);
        table.row(["U-Boot".into(), thousands(796)]);
        table.row(["EDK2".into(), thousands(1_234_567)]);
        table
    }

    #[test]
    fn numbers_stand_below_each_other() {
        assert_eq!(
            table().text(),
            "who         reads\nU-Boot        796\nEDK2    1,234,567\n"
        );
    }

    #[test]
    fn markdown_has_a_rule_below_its_heading() {
        assert_eq!(
            table().markdown(),
            "| who | reads |\n| --- | ---: |\n| U-Boot | 796 |\n| EDK2 | 1,234,567 |\n"
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345, "12,345")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(percent(0.0964), "9.6%");
    }
}
