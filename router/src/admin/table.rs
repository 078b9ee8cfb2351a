//! Answers of the console as tables, each column's name beside what it shows of an item.

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`
    Text,
    /// `int8`
    Int8,
}

/// The rows of an answer, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Names and types.
    pub columns: Vec<(&'static str, ColumnType)>,
    /// Values, in the order of the columns.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A table under way: a row for each item, to which columns are added.
pub(super) struct List<Item> {
    items: Vec<Item>,
    table: Table,
}

impl<Item> List<Item> {
    /// A row for each of `items`, without columns yet.
    pub(super) fn of(items: impl IntoIterator<Item = Item>) -> Self {
        let items: Vec<Item> = items.into_iter().collect();
        let table = Table {
            columns: Vec::new(),
            rows: vec![Vec::new(); items.len()],
        };
        Self { items, table }
    }

    /// Adds a column of text.
    pub(super) fn text<Value: ToText>(
        self,
        name: &'static str,
        value: impl Fn(&Item) -> Value,
    ) -> Self {
        self.column(name, ColumnType::Text, |item| value(item).to_text())
    }

    /// Adds a column of numbers.
    pub(super) fn number<Value: ToNumber>(
        self,
        name: &'static str,
        value: impl Fn(&Item) -> Value,
    ) -> Self {
        self.column(name, ColumnType::Int8, |item| {
            value(item).to_number().map(|number| number.to_string())
        })
    }

    fn column(
        mut self,
        name: &'static str,
        column_type: ColumnType,
        value: impl Fn(&Item) -> Option<String>,
    ) -> Self {
        self.table.columns.push((name, column_type));
        for (item, row) in self.items.iter().zip(&mut self.table.rows) {
            row.push(value(item));
        }
        self
    }

    /// The table with all its columns.
    pub(super) fn done(self) -> Table {
        self.table
    }
}

/// What a column of text can show; `None` is NULL.
pub(super) trait ToText {
    fn to_text(self) -> Option<String>;
}

impl ToText for &str {
    fn to_text(self) -> Option<String> {
        Some(self.to_owned())
    }
}

impl ToText for String {
    fn to_text(self) -> Option<String> {
        Some(self)
    }
}

impl<Value: ToText> ToText for Option<Value> {
    fn to_text(self) -> Option<String> {
        self.and_then(Value::to_text)
    }
}

/// What a column of numbers can show; `None` is NULL.
pub(super) trait ToNumber {
    fn to_number(self) -> Option<u64>;
}

impl ToNumber for u64 {
    fn to_number(self) -> Option<u64> {
        Some(self)
    }
}

impl ToNumber for u32 {
    fn to_number(self) -> Option<u64> {
        Some(self.into())
    }
}

impl ToNumber for u16 {
    fn to_number(self) -> Option<u64> {
        Some(self.into())
    }
}

impl ToNumber for usize {
    fn to_number(self) -> Option<u64> {
        u64::try_from(self).ok()
    }
}

impl<Value: ToNumber> ToNumber for Option<Value> {
    fn to_number(self) -> Option<u64> {
        self.and_then(Value::to_number)
    }
}
