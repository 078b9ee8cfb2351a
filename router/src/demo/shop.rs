//! The web shop that the demo shows and the tests use: its tables, how they are distributed, and its rows.
//!
//! Rows are a function of the sizes alone: every run, and every server, gets the same ones.

use std::fmt::Write;

use switchyard_cluster as cluster;
use switchyard_schema::KeyType;

/// The tables, for one PostgreSQL or for each shard.
pub const DDL: &str = include_str!("shop.sql");

/// The `[[databases.tables]]` part of a configuration with at least two shards named `s0`, `s1`, …
pub const TABLES: &str = r#"
[[databases.tables]]
name      = "users"
shard_key = "id"
method    = "hash"

[[databases.tables]]
name          = "orders"
shard_key     = "user_id"
method        = "hash"
colocate_with = "users"

[[databases.tables]]
name          = "order_items"
shard_key     = "user_id"
method        = "hash"
colocate_with = "users"

[[databases.tables]]
name      = "products"
shard_key = "id"
method    = "hash"

[[databases.tables]]
name      = "events"
shard_key = "created_at"
method    = "range"
ranges    = [ { below = "2026-01-01", shard = "s0" }, { shard = "s1" } ]

[[databases.tables]]
name   = "countries"
method = "reference"
"#;

/// A table of the shop, in an order in which foreign keys allow loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// A reference table.
    Countries,
    /// The head of the colocated tables.
    Users,
    /// Sharded by its own key.
    Products,
    /// Colocated with users.
    Orders,
    /// Colocated with users.
    OrderItems,
    /// Sharded by ranges of time.
    Events,
}

impl Table {
    /// Every table, parents before children.
    pub const ALL: [Table; 6] = [
        Table::Countries,
        Table::Users,
        Table::Products,
        Table::Orders,
        Table::OrderItems,
        Table::Events,
    ];

    /// Its name in PostgreSQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Countries => "countries",
            Table::Users => "users",
            Table::Products => "products",
            Table::Orders => "orders",
            Table::OrderItems => "order_items",
            Table::Events => "events",
        }
    }

    /// The shard key, which is the first column, and its type.
    fn columns(self) -> &'static [(&'static str, KeyType)] {
        match self {
            Table::Countries => &[],
            Table::Users => &[("id", KeyType::Int8)],
            Table::Products => &[("id", KeyType::Int4)],
            Table::Orders | Table::OrderItems => &[("user_id", KeyType::Int8)],
            Table::Events => &[("created_at", KeyType::Timestamp)],
        }
    }
}

/// How many rows the shop has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shop {
    /// Users, numbered from 1.
    pub users: u64,
    /// Products, numbered from 1.
    pub products: u64,
    /// Events.
    pub events: u64,
}

impl Shop {
    /// The demo's: more than 100,000 rows.
    pub const DEMO: Shop = Shop {
        users: 10_000,
        products: 2_000,
        events: 25_000,
    };

    /// Small enough that a test can compare all of it.
    pub const SMALL: Shop = Shop {
        users: 300,
        products: 60,
        events: 400,
    };

    /// What can be loaded into a cluster, in loading order.
    #[must_use]
    pub fn tables(self) -> Vec<cluster::Table<'static>> {
        let table = |table: Table| cluster::Table {
            name: table.name(),
            columns: table.columns(),
            rows: Box::new(move |row| self.rows(table, row)),
        };
        Table::ALL.into_iter().map(table).collect()
    }

    /// Gives `row` every row of a table as a line of COPY's text format without the line's end. The first column is the
    /// shard key of every sharded table.
    pub fn rows(&self, table: Table, mut row: impl FnMut(&str)) {
        match table {
            Table::Countries => {
                for (code, name, currency) in COUNTRIES {
                    row(&format!("{code}\t{name}\t{currency}"));
                }
            }
            Table::Users => (1..=self.users).for_each(|id| row(&user(id))),
            Table::Products => (1..=self.products).for_each(|id| row(&product(id))),
            Table::Orders => (1..=self.users)
                .flat_map(|user| self.orders_of(user))
                .for_each(|order| row(&order.line())),
            Table::OrderItems => (1..=self.users)
                .flat_map(|user| self.orders_of(user))
                .for_each(|order| {
                    order
                        .items
                        .iter()
                        .for_each(|item| row(&order.item_line(item)))
                }),
            Table::Events => (1..=self.events).for_each(|id| row(&self.event(id))),
        }
    }

    /// Zero to five orders; each user's are numbered from 1.
    fn orders_of(&self, user: u64) -> Vec<Order> {
        let mut dice = Dice::new("orders", user);
        (1..=dice.below(6)).map(|id| self.order(user, id)).collect()
    }

    fn order(&self, user: u64, id: u64) -> Order {
        let mut dice = Dice::new("order", user * 16 + id);
        let items = (1..=1 + dice.below(4))
            .map(|line| {
                let product = 1 + dice.below(self.products);
                let quantity = 1 + dice.below(3);
                Item {
                    line,
                    product,
                    quantity,
                    cents: price_in_cents(product),
                }
            })
            .collect();
        Order {
            user,
            id,
            placed_at: moment(&mut dice),
            status: ["new", "paid", "shipped", "shipped", "shipped", "returned"]
                [dice.below(6) as usize],
            ship_to: country(&mut dice),
            items,
        }
    }

    fn event(&self, id: u64) -> String {
        let mut dice = Dice::new("event", id);
        let kind =
            ["view", "view", "view", "search", "add to cart", "login"][dice.below(6) as usize];
        let country = if dice.below(10) == 0 {
            "\\N"
        } else {
            country(&mut dice)
        };
        format!(
            "{}\t{id}\t{}\t{kind}\t{country}",
            moment(&mut dice),
            1 + dice.below(self.users)
        )
    }
}

struct Order {
    user: u64,
    id: u64,
    placed_at: String,
    status: &'static str,
    ship_to: &'static str,
    items: Vec<Item>,
}

struct Item {
    line: u64,
    product: u64,
    quantity: u64,
    cents: u64,
}

impl Order {
    fn line(&self) -> String {
        let total = self
            .items
            .iter()
            .map(|item| item.quantity * item.cents)
            .sum();
        let Order {
            user,
            id,
            placed_at,
            status,
            ship_to,
            ..
        } = self;
        format!(
            "{user}\t{id}\t{placed_at}+00\t{status}\t{ship_to}\t{}",
            money(total)
        )
    }

    fn item_line(&self, item: &Item) -> String {
        let Item {
            line,
            product,
            quantity,
            cents,
        } = item;
        format!(
            "{}\t{}\t{line}\t{product}\t{quantity}\t{}",
            self.user,
            self.id,
            money(*cents)
        )
    }
}

fn user(id: u64) -> String {
    let mut dice = Dice::new("user", id);
    let first = FIRST_NAMES[dice.below(FIRST_NAMES.len() as u64) as usize];
    let last = LAST_NAMES[dice.below(LAST_NAMES.len() as u64) as usize];
    let country = country(&mut dice);
    format!(
        "{id}\tuser{id}@example.com\t{first} {last}\t{country}\t{}+00",
        moment(&mut dice)
    )
}

fn product(id: u64) -> String {
    let mut dice = Dice::new("product", id);
    let kind = ["lamp", "chair", "kettle", "notebook", "scarf", "bicycle"][dice.below(6) as usize];
    let colour = ["red", "blue", "green", "black", "white"][dice.below(5) as usize];
    let (high, low) = (dice.next(), dice.next());
    let sku = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high & 0xffff,
        low >> 52,
        (low >> 40) & 0xfff,
        low & 0xff_ffff_ffff
    );
    let attributes = format!(
        "{{\"colour\": \"{colour}\", \"weight_g\": {}}}",
        50 + dice.below(20_000)
    );
    format!(
        "{id}\t{sku}\t{colour} {kind} no. {id}\t{}\t{attributes}",
        money(price_in_cents(id))
    )
}

fn price_in_cents(product: u64) -> u64 {
    99 + Dice::new("price", product).below(20_000)
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn country(dice: &mut Dice) -> &'static str {
    COUNTRIES[dice.below(COUNTRIES.len() as u64) as usize].0
}

/// A second of the years 2025 and 2026 up to the end of June, as PostgreSQL writes it.
fn moment(dice: &mut Dice) -> String {
    const DAYS: [u64; 18] = [
        31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28, 31, 30, 31, 30,
    ];
    let (month, day) = {
        let month = dice.below(18);
        (month, 1 + dice.below(DAYS[month as usize]))
    };
    let second = dice.below(86_400);
    let mut text = String::with_capacity(19);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{}-{:02}-{day:02} ",
        2025 + month / 12,
        1 + month % 12
    );
    let _ = write!(
        text,
        "{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    text
}

/// A stream of numbers that depends on a word and a number only (splitmix64).
struct Dice(u64);

impl Dice {
    fn new(word: &str, number: u64) -> Dice {
        let seed = word.bytes().fold(0, |seed: u64, byte| {
            seed.wrapping_mul(257).wrapping_add(byte.into())
        });
        let mut dice = Dice(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

const FIRST_NAMES: [&str; 16] = [
    "Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiro", "Ines", "João", "Kiran",
    "Lena", "Mateo", "Noor", "Olga", "Zoë",
];

const LAST_NAMES: [&str; 16] = [
    "Abe", "Brown", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Hansen", "Ivanova",
    "Jansen", "Kim", "Lopez", "Müller", "Novák", "O'Neill", "Zhang",
];

const COUNTRIES: [(&str, &str, &str); 24] = [
    ("ar", "Argentina", "ARS"),
    ("at", "Austria", "EUR"),
    ("au", "Australia", "AUD"),
    ("be", "Belgium", "EUR"),
    ("br", "Brazil", "BRL"),
    ("ca", "Canada", "CAD"),
    ("ch", "Switzerland", "CHF"),
    ("cz", "Czechia", "CZK"),
    ("de", "Germany", "EUR"),
    ("dk", "Denmark", "DKK"),
    ("es", "Spain", "EUR"),
    ("fr", "France", "EUR"),
    ("gb", "United Kingdom", "GBP"),
    ("in", "India", "INR"),
    ("it", "Italy", "EUR"),
    ("jp", "Japan", "JPY"),
    ("ke", "Kenya", "KES"),
    ("kr", "South Korea", "KRW"),
    ("mx", "Mexico", "MXN"),
    ("ng", "Nigeria", "NGN"),
    ("nl", "Netherlands", "EUR"),
    ("no", "Norway", "NOK"),
    ("pl", "Poland", "PLN"),
    ("us", "United States", "USD"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn count(shop: Shop, table: Table) -> usize {
        let mut count = 0;
        shop.rows(table, |_| count += 1);
        count
    }

    #[test]
    fn the_demo_has_a_hundred_thousand_rows() {
        let total: usize = Table::ALL
            .into_iter()
            .map(|table| count(Shop::DEMO, table))
            .sum();
        assert!((100_000..200_000).contains(&total), "{total}");
    }

    #[test]
    fn rows_are_the_same_every_time() {
        for table in Table::ALL {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            Shop::SMALL.rows(table, |row| first.push(row.to_owned()));
            Shop::SMALL.rows(table, |row| second.push(row.to_owned()));
            assert_eq!(first, second);
            assert!(!first.is_empty());
        }
    }

    #[test]
    fn both_ranges_of_events_have_rows() {
        let (mut before, mut after) = (0, 0);
        Shop::SMALL.rows(Table::Events, |row| {
            if row < "2026-01-01" {
                before += 1
            } else {
                after += 1
            }
        });
        assert!(before > 100 && after > 50, "{before} {after}");
    }
}
