//! The plan cache of one worker.
//!
//! Purpose: a text seen before costs no parse. Invariants: a plan is found only by the very tokens it was made from (the
//! hash only says where to look), and so none is kept that has places in its text, which is spaced otherwise the next time; for the same context, and with the same values of the literals it depends on; the memory
//! held is bounded in bytes. Collaborators: the session interns its [`ContextId`] once and again when it changes.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::Plan;
use crate::relations::SearchPath;
use crate::sql::Scan;
use crate::sql::template::Template;

/// A number for everything besides the text that a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContextId(u32);

/// What a plan depends on besides the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheContext {
    /// The database.
    pub database: Box<str>,
    /// The version of its relations and map.
    pub epoch: u64,
    /// The role that runs statements.
    pub role: Box<str>,
    /// Its search path.
    pub search_path: SearchPath,
    /// The session's temporary relations.
    pub temporary: Vec<String>,
    /// What may answer a read.
    pub layer: super::Layer,
}

/// Plans by text and context.
///
/// Two generations: what is used moves to the young one; when that holds half the limit it becomes the old one, and what
/// was left in the old one is dropped. So what is used often stays, and dropping costs nothing per use.
#[derive(Debug)]
pub struct PlanCache {
    young: Generation,
    old: Generation,
    limit: usize,
    seed: u64,
    contexts: HashMap<CacheContext, ContextId>,
    next_context: u32,
    /// Texts recognised without a scan, by their first bytes.
    familiar: Box<[Option<Familiar>]>,
    next_familiar: usize,
    /// Lookups that found a plan.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
}

#[derive(Debug, Default)]
struct Generation {
    entries: HashMap<u64, Vec<Entry>, Identity>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    context: ContextId,
    guards: Box<[u32]>,
    /// The values of the guards, each with its length in front.
    values: Box<[u8]>,
    plan: Arc<Plan>,
    bytes: usize,
}

/// A text seen lately whose plan depends on none of its values.
#[derive(Debug)]
struct Familiar {
    template: Template,
    context: ContextId,
    plan: Arc<Plan>,
}

/// So many texts are recognised without a scan, in sets of [`WAYS`].
const FAMILIAR: usize = 1024;
/// The bytes that tell where to look for a text; shorter ones are all in one place.
const START: usize = 24;
/// Texts that start alike and are recognised.
const WAYS: usize = 4;
/// More contexts than this are forgotten together with all plans.
const MAX_CONTEXTS: usize = 1024;
/// More plans than this under one hash (one text with many guard values, mostly) drop the first.
const MAX_SAME_TEXT: usize = 64;

impl PlanCache {
    /// A cache that holds about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        PlanCache {
            young: Generation::default(),
            old: Generation::default(),
            limit,
            seed: RandomState::new().hash_one(limit),
            contexts: HashMap::new(),
            next_context: 0,
            familiar: (0..FAMILIAR).map(|_| None).collect(),
            next_familiar: 0,
            hits: 0,
            misses: 0,
        }
    }

    /// The number of a context.
    pub fn context(&mut self, context: &CacheContext) -> ContextId {
        if let Some(id) = self.contexts.get(context) {
            return *id;
        }
        if self.contexts.len() >= MAX_CONTEXTS {
            self.contexts.clear();
            self.familiar.fill_with(|| None);
            self.young = Generation::default();
            self.old = Generation::default();
        }
        let id = ContextId(self.next_context);
        self.next_context = self.next_context.wrapping_add(1);
        self.contexts.insert(context.clone(), id);
        id
    }

    /// The plan for a text, if it is known.
    pub fn get(&mut self, sql: &[u8], scan: &Scan, context: ContextId) -> Option<Arc<Plan>> {
        let hash = hash(&scan.normalized, self.seed ^ u64::from(context.0));
        if let Some(plan) = self.young.find(hash, sql, scan, context) {
            self.hits += 1;
            return Some(plan);
        }
        if let Some(entry) = self.old.take(hash, sql, scan, context) {
            self.hits += 1;
            let plan = Arc::clone(&entry.plan);
            self.add(hash, entry);
            return Some(plan);
        }
        self.misses += 1;
        None
    }

    /// The plan for a text that differs from one of late in its values only. `scan` then holds its literals, and is
    /// otherwise that of any one statement.
    pub(crate) fn recognise(
        &mut self,
        sql: &[u8],
        scan: &mut Scan,
        context: ContextId,
    ) -> Option<Arc<Plan>> {
        let set = self.set_of(sql, context);
        let known = self
            .familiar
            .get(set..set + WAYS)?
            .iter()
            .flatten()
            .find(|known| {
                known.context == context && known.template.matches(sql, &mut scan.literals)
            })?;
        scan.recognised(sql.len());
        self.hits += 1;
        Some(Arc::clone(&known.plan))
    }

    /// Makes a text that has just been scanned, and whose plan was known, one to be recognised.
    pub(crate) fn make_familiar(
        &mut self,
        sql: &[u8],
        scan: &Scan,
        context: ContextId,
        plan: &Arc<Plan>,
    ) {
        if !plan.guards.is_empty() {
            return;
        }
        let Some(template) = Template::new(sql, scan) else {
            return;
        };
        let set = self.set_of(sql, context);
        let ways = self.familiar.get_mut(set..set + WAYS).unwrap_or_default();
        let free = ways.iter().position(Option::is_none);
        let way = free.unwrap_or(self.next_familiar % WAYS);
        self.next_familiar = self.next_familiar.wrapping_add(1);
        if let Some(way) = ways.get_mut(way) {
            *way = Some(Familiar {
                template,
                context,
                plan: Arc::clone(plan),
            });
        }
    }

    /// Where texts that start like this one are kept: few have a literal in their first bytes.
    fn set_of(&self, sql: &[u8], context: ContextId) -> usize {
        let start = sql.get(..START).unwrap_or_default();
        let hash = hash(start, self.seed ^ u64::from(context.0));
        (hash as usize % (FAMILIAR / WAYS)) * WAYS
    }

    /// Remembers the plan of a text.
    pub fn insert(&mut self, sql: &[u8], scan: &Scan, context: ContextId, plan: Arc<Plan>) {
        if plan.command.has_places() {
            return;
        }
        let mut values = Vec::new();
        for guard in &plan.guards {
            let value = guard_value(sql, scan, *guard);
            values.extend_from_slice(&(value.len() as u64).to_le_bytes());
            values.extend_from_slice(value);
        }
        let bytes = scan.normalized.len()
            + values.len()
            + plan.size()
            + size_of::<Entry>()
            + size_of::<Plan>();
        if bytes > self.limit / 4 {
            return;
        }
        let entry = Entry {
            text: scan.normalized.as_slice().into(),
            context,
            guards: plan.guards.as_slice().into(),
            values: values.into(),
            plan,
            bytes,
        };
        self.add(
            hash(&scan.normalized, self.seed ^ u64::from(context.0)),
            entry,
        );
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    fn add(&mut self, hash: u64, entry: Entry) {
        self.young.add(hash, entry);
        if self.young.bytes > self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

impl Generation {
    fn find(&self, hash: u64, sql: &[u8], scan: &Scan, context: ContextId) -> Option<Arc<Plan>> {
        let entries = self.entries.get(&hash)?;
        entries
            .iter()
            .find(|entry| entry.is_for(sql, scan, context))
            .map(|entry| Arc::clone(&entry.plan))
    }

    fn take(&mut self, hash: u64, sql: &[u8], scan: &Scan, context: ContextId) -> Option<Entry> {
        let entries = self.entries.get_mut(&hash)?;
        let at = entries
            .iter()
            .position(|entry| entry.is_for(sql, scan, context))?;
        let entry = entries.swap_remove(at);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }

    fn add(&mut self, hash: u64, entry: Entry) {
        self.bytes += entry.bytes;
        let entries = self.entries.entry(hash).or_default();
        if entries.len() >= MAX_SAME_TEXT {
            self.bytes = self.bytes.saturating_sub(entries.remove(0).bytes);
        }
        entries.push(entry);
    }
}

impl Entry {
    fn is_for(&self, sql: &[u8], scan: &Scan, context: ContextId) -> bool {
        if self.context != context || *self.text != *scan.normalized {
            return false;
        }
        let mut values = &*self.values;
        self.guards.iter().all(|guard| {
            let expected = values.split_first_chunk::<8>().and_then(|(length, rest)| {
                let (value, rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
                values = rest;
                Some(value)
            });
            expected == Some(guard_value(sql, scan, *guard))
        })
    }
}

fn guard_value<'a>(sql: &'a [u8], scan: &Scan, slot: u32) -> &'a [u8] {
    let literal = scan.literals.get(slot as usize);
    literal
        .and_then(|literal| sql.get(literal.span.start as usize..literal.span.end as usize))
        .unwrap_or_default()
}

/// Multiply and fold, eight bytes at a time; seeded, so that no client can aim at one bucket.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(MULTIPLIER);
        (product as u64) ^ (product >> 64) as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = fold(seed, bytes.len() as u64);
    for word in words {
        state = fold(state, u64::from_le_bytes(*word)).wrapping_add(MULTIPLIER);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(fold(state, u64::from_le_bytes(last)), seed)
}

/// The keys are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct Identity;

impl BuildHasher for Identity {
    type Hasher = IdentityHasher;

    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher(0)
    }
}

#[derive(Debug, Default)]
struct IdentityHasher(u64);

impl std::hash::Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes, self.0);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, plan};
    use super::*;
    use crate::relations::{Relations, fixture};

    fn context(cache: &mut PlanCache, epoch: u64, role: &str) -> ContextId {
        let context = CacheContext {
            database: "shop".into(),
            epoch,
            role: role.into(),
            search_path: SearchPath::default(),
            temporary: Vec::new(),
            layer: crate::plan::Layer::Auto,
        };
        cache.context(&context)
    }

    fn scan(sql: &str) -> Scan {
        let mut scan = Scan::new();
        scan.scan(sql.as_bytes()).unwrap();
        scan
    }

    fn add(cache: &mut PlanCache, relations: &Relations, sql: &str, id: ContextId) -> Arc<Plan> {
        let scan = scan(sql);
        let context = Context {
            relations,
            search_path: &SearchPath::default(),
            temporary: &[],
            layer: crate::plan::Layer::Auto,
            given: &[],
            ahead: &[],
            in_trigger: false,
        };
        let plan = Arc::new(plan(sql, &scan, &context));
        cache.insert(sql.as_bytes(), &scan, id, Arc::clone(&plan));
        plan
    }

    fn get(cache: &mut PlanCache, sql: &str, id: ContextId) -> Option<Arc<Plan>> {
        cache.get(sql.as_bytes(), &scan(sql), id)
    }

    #[test]
    fn a_plan_serves_every_value_of_its_literals_in_its_context() {
        let relations = fixture::relations(2, "table public.users hash id (id int8 not null)");
        let mut cache = PlanCache::new(1 << 20);
        let here = context(&mut cache, 1, "alice");
        assert_eq!(here, context(&mut cache, 1, "alice"));
        let there = context(&mut cache, 1, "bob");
        let later = context(&mut cache, 2, "alice");
        let plan = add(
            &mut cache,
            &relations,
            "SELECT * FROM users WHERE id = 1",
            here,
        );
        let found = get(&mut cache, "SELECT *  FROM users WHERE id = 22", here).unwrap();
        assert!(Arc::ptr_eq(&plan, &found));
        for (sql, id) in [
            ("SELECT * FROM users WHERE id = '1'", here),
            ("SELECT * FROM users WHERE id = -1", here),
            ("SELECT * FROM Users WHERE id = 1", here),
            ("SELECT * FROM users WHERE id = 1", there),
            ("SELECT * FROM users WHERE id = 1", later),
        ] {
            assert!(get(&mut cache, sql, id).is_none(), "{sql}");
        }
        assert_eq!((cache.hits, cache.misses), (1, 5));
    }

    /// The plan depends on the name, and not on the value.
    fn guarded(value: &str, name: &str) -> String {
        format!("SELECT set_config(name, '{value}', true) FROM pg_settings WHERE name = '{name}'")
    }

    #[test]
    fn guarded_literals_are_part_of_the_key() {
        let relations = fixture::relations(2, "table public.users hash id (id int8 not null)");
        let mut cache = PlanCache::new(1 << 20);
        let id = context(&mut cache, 1, "alice");
        let sql = |name: &str, value: &str| guarded(value, name);
        let path = add(&mut cache, &relations, &sql("search_path", "a"), id);
        assert_eq!(path.settings.len(), 1);
        assert!(get(&mut cache, &sql("work_mem", "a"), id).is_none());
        let other = add(&mut cache, &relations, &sql("work_mem", "a"), id);
        assert!(Arc::ptr_eq(
            &other,
            &get(&mut cache, &sql("work_mem", "b"), id).unwrap()
        ));
        assert!(Arc::ptr_eq(
            &path,
            &get(&mut cache, &sql("search_path", "b"), id).unwrap()
        ));
    }

    #[test]
    fn what_has_places_in_its_text_is_not_kept() {
        let relations = fixture::relations(2, "table public.users hash id (id int8 not null)");
        let mut cache = PlanCache::new(1 << 20);
        let id = context(&mut cache, 1, "alice");
        for sql in ["PREPARE one AS SELECT 1", "EXECUTE one(17)"] {
            add(&mut cache, &relations, sql, id);
            assert!(get(&mut cache, sql, id).is_none(), "{sql}");
        }
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let relations = fixture::relations(2, "table public.users hash id (id int8 not null)");
        let limit = 64 << 10;
        let mut cache = PlanCache::new(limit);
        let id = context(&mut cache, 1, "alice");
        let hot = "SELECT id FROM users WHERE id = 1";
        add(&mut cache, &relations, hot, id);
        for n in 0..500 {
            add(
                &mut cache,
                &relations,
                &format!("SELECT id AS c{n} FROM users WHERE id = 1"),
                id,
            );
            assert!(get(&mut cache, hot, id).is_some(), "{n}");
            assert!(cache.bytes() <= limit, "{}", cache.bytes());
        }
        assert!(get(&mut cache, "SELECT id AS c1 FROM users WHERE id = 1", id).is_none());
    }

    #[test]
    fn one_text_with_many_guard_values_stays_small() {
        let relations = fixture::relations(2, "table public.users hash id (id int8 not null)");
        let mut cache = PlanCache::new(1 << 30);
        let id = context(&mut cache, 1, "alice");
        for n in 0..1000 {
            add(&mut cache, &relations, &guarded("x", &format!("s{n}")), id);
        }
        let kept = cache.young.entries.values().map(Vec::len).max();
        assert_eq!(kept, Some(MAX_SAME_TEXT));
    }
}
