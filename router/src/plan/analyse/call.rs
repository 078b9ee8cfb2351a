//! Function calls: volatility, aggregates, what a call leaves behind in the session.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName};

use super::names::function_name;
use super::{Analyser, Stop};
use crate::plan::refusal::Refusal;
use crate::plan::remembered::sequence_named;
use crate::plan::workspace::read_by_text;
use crate::plan::{Context, Pin};
use crate::relations::{
    self, Function as Known, FunctionKind, Volatility, is_moment, is_momentary, is_own, runs_text,
};

/// Volatile functions of PostgreSQL's that only compute, besides those that [give every row its own value](is_own): which server runs
/// them does not matter.
const STATELESS: &[&str] = &["setseed", "set_config"];

/// Aggregates whose result does not depend on the order of their input.
const ORDERLESS: &[&str] = &[
    "avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "every", "max", "min",
    "sum",
];

impl<'a> Analyser<'a> {
    /// Notes the call of a function by name.
    pub(super) fn called(&mut self, name: &ObjectName) -> Result<(), Stop> {
        let (schema, name) = function_name(name)?;
        self.call(schema.as_deref(), &name)
    }

    /// Notes a call in an expression; some functions are judged by their arguments.
    pub(super) fn called_with(&mut self, function: &'a Function) -> Result<(), Stop> {
        let (schema, name) = function_name(&function.name)?;
        if name == "set_config"
            && schema
                .as_deref()
                .is_none_or(|schema| schema == "pg_catalog")
        {
            self.set_config(function)?;
        }
        if name == "current_setting" {
            self.reads_setting(function)?;
        }
        if matches!(&*name, "nextval" | "setval") {
            self.uses_sequence(&function.args);
        }
        if let FunctionArguments::List(list) = &function.args
            && self.runs_constant(schema.as_deref(), &name, &list.args)?
        {
            return Ok(());
        }
        self.call(schema.as_deref(), &name)
    }

    /// Whether it is a call of `ts_stat` or `ts_rewrite` whose query is a constant, or that has none: then what it reads is known, and
    /// it does no more.
    pub(super) fn runs_constant(
        &mut self,
        schema: Option<&str>,
        name: &str,
        arguments: &'a [FunctionArg],
    ) -> Result<bool, Stop> {
        let text = match (name, arguments) {
            _ if self.alone || schema.is_some_and(|schema| schema != "pg_catalog") => {
                return Ok(false);
            }
            ("ts_rewrite", [_, _, _]) => None,
            ("ts_rewrite", [_, text]) | ("ts_stat", [text] | [text, _]) => Some(text),
            _ => return Ok(false),
        };
        let relations = self.context.relations;
        let mut known = relations.functions(self.context.search_path, schema, name);
        if known.any(|function| &*function.schema != "pg_catalog") {
            return Ok(false);
        }
        let Some(text) = text else {
            return Ok(true);
        };
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(text)) = text else {
            return Ok(false);
        };
        let Some(text) = self.constant_text(text) else {
            return Ok(false);
        };
        let refusal = Refusal::not_supported(format!(
            "function \"{name}\" is not supported across shards"
        ));
        match read_by_text(&text, self.context) {
            Ok(read) => {
                self.analysis.read_inside.extend(read);
                let refusal = refusal.detail("It reads tables that are named by its arguments.");
                self.analysis.reads_views.get_or_insert(refusal);
                Ok(true)
            }
            Err(why) => Err(refusal.detail(why).into()),
        }
    }

    fn call(&mut self, schema: Option<&str>, name: &str) -> Result<(), Stop> {
        if is_syntax(name) {
            if is_momentary(name) {
                self.moment(name);
            }
            return Ok(());
        }
        let path = self.context.search_path;
        let schema_owned = schema.map(str::to_owned);
        let known: Vec<&Known> = self
            .context
            .relations
            .functions(path, schema_owned.as_deref(), name)
            .collect();
        if known.is_empty() {
            self.is_unknown(name);
            self.analysis.primary = true;
            self.analysis.may_change = true;
            self.uses_unseen_sequences();
            self.needs_merge(|| {
                Refusal::not_supported(format!("function \"{name}\" is not supported across shards: it is not known to the router"))
            });
            self.diverges(name);
            return Ok(());
        }
        for function in known {
            self.known_call(function, name)?;
        }
        Ok(())
    }

    fn known_call(&mut self, function: &Known, name: &str) -> Result<(), Stop> {
        let builtin = function.is_builtin(name);
        if builtin && !self.alone && self.context.relations.has_sharded() && runs_text(name) {
            return Err(Refusal::not_supported(format!(
                "function \"{name}\" is not supported across shards"
            ))
            .detail("It reads tables that are named by its arguments.")
            .into());
        }
        if !self.alone {
            self.reads(function, name)?;
        }
        if builtin && (only_computes(name) || differs_on_a_replica(name)) {
            self.analysis.primary_read = true;
        } else if builtin && is_advisory(name) {
            self.analysis.locks_apart = true;
            self.analysis.may_change = true;
        // The session takes note of what set_config does: it can be done anywhere.
        } else if function.volatility == Volatility::Volatile && !(builtin && name == "set_config")
        {
            self.analysis.primary = true;
            if builtin && name == "nextval" {
                self.analysis.calls_next = true;
            } else if function.reads.is_none() {
                self.analysis.may_change = true;
                self.analysis.effects.dirty |= function.user_code;
                if function.user_code {
                    self.uses_unseen_sequences();
                }
            }
        }
        if function.volatility != Volatility::Immutable
            && (function.volatility == Volatility::Volatile
                || function.user_code
                || differs(name, builtin))
        {
            if builtin && is_moment(name) {
                self.moment(name);
            } else {
                match builtin && only_computes(name) && self.is_for_each_row() {
                    true => self.varies(|| momentary(name)),
                    false => self.needs_merge(|| momentary(name)),
                }
                self.diverges(name);
            }
        }
        if builtin
            && function.volatility == Volatility::Volatile
            && !STATELESS.contains(&name)
            && !is_own(name)
        {
            self.needs_first_shard(&format!("{name}()"));
        }
        self.analysis.multiplies |= function.returns_set && self.is_for_each_row();
        self.changes(&function.changes)?;
        if builtin {
            self.session_state(name);
            self.analysis.catalog |=
                function.volatility == Volatility::Stable && reads_catalogue(name);
        }
        Ok(())
    }

    /// Whether an expression that is walked now is computed for each row that is written.
    fn is_for_each_row(&self) -> bool {
        self.analysis.writes && self.blocks.is_empty() && !self.in_from
    }

    /// What the code of a user's function may touch.
    fn reads(&mut self, function: &Known, name: &str) -> Result<(), Stop> {
        self.analysis.calls_code |= function.user_code;
        self.reads_by_itself(function);
        if let Some(table) = &function.reads_sharded {
            let refusal = Refusal::not_supported(format!(
                "function \"{name}\" uses the sharded table \"{table}\""
            ))
            .detail(
                "Functions that use sharded tables cannot be run on one shard and see all rows.",
            )
            .hint(
                "Run its statements from the client, or name the shard: /* switchyard: shard=… */.",
            );
            if function.reads.is_none() {
                return Err(refusal.into());
            }
            self.analysis.reads_views.get_or_insert(refusal);
            return Ok(());
        }
        if function.dynamic && self.context.relations.has_sharded() {
            return Err(Refusal::not_supported(format!(
                "function \"{name}\" runs SQL that the router cannot see"
            ))
            .hint("Name the shard it runs on: /* switchyard: shard=… */.")
            .into());
        }
        if let Some(table) = &function.writes_reference {
            return Err(Refusal::not_supported(format!(
                "function \"{name}\" may write the reference table \"{table}\""
            ))
            .detail("It would change the copy of one shard only.")
            .into());
        }
        if function.reads_unsharded {
            if function.reads.is_none() {
                let inside = &mut self.analysis.reads_inside;
                inside.get_or_insert_with(|| name.to_owned());
            }
            self.needs_first_shard(&format!("{name}()"));
        }
        Ok(())
    }

    /// Takes note of the sequence that a call names, if it is a constant.
    fn uses_sequence(&mut self, arguments: &'a FunctionArguments) {
        let FunctionArguments::List(list) = arguments else {
            return;
        };
        let named = match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(named))) => named,
            _ => return self.uses_unseen_sequences(),
        };
        let named = match named {
            Expr::Cast { expr, .. } => expr,
            named => named,
        };
        match self.constant_text(named) {
            Some(name) => self.analysis.used_sequences.push(sequence_named(&name)),
            None => self.uses_unseen_sequences(),
        }
    }

    /// Sequences may be used, and nobody knows which.
    pub(super) fn uses_unseen_sequences(&mut self) {
        self.analysis.effects.uses_sequences = true;
        self.analysis.effects.unseen_sequences = true;
    }

    fn session_state(&mut self, name: &str) {
        match name {
            "nextval" | "setval" => self.analysis.effects.uses_sequences = true,
            "setseed" => self.analysis.effects.seeds_random = true,
            "currval" | "lastval" => {
                self.analysis.effects.reads_sequence_state = true;
                self.analysis.primary = true;
                self.needs_first_shard(&format!("{name}()"));
            }
            // They give the transaction a number.
            "txid_current" | "pg_current_xact_id" => {
                self.analysis.primary = true;
                self.needs_first_shard(&format!("{name}()"));
            }
            "pg_advisory_lock"
            | "pg_advisory_lock_shared"
            | "pg_try_advisory_lock"
            | "pg_try_advisory_lock_shared" => {
                self.analysis.effects.pins.insert(Pin::AdvisoryLock);
                self.analysis.effects.unlocks |= name.starts_with("pg_try");
            }
            "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => {
                self.analysis.effects.unlocks = true;
            }
            _ => {}
        }
    }

    /// Notes a function that says what time it is.
    fn moment(&mut self, name: &str) {
        self.analysis.moments = true;
        self.varies(|| momentary(name));
    }

    /// Copies of a reference table written with this function's result could differ.
    pub(super) fn diverges(&mut self, name: &str) {
        if self.analysis.diverges.is_none() {
            self.analysis.diverges = Some(name.to_owned());
        }
    }

    /// Marks the query block of an aggregate or window function.
    pub(super) fn aggregate(&mut self, function: &'a Function, outward: usize) -> Result<(), Stop> {
        let (schema, name) = function_name(&function.name)?;
        let path = self.context.search_path;
        let kinds: Vec<FunctionKind> = self
            .context
            .relations
            .functions(path, schema.as_deref(), &name)
            .map(|function| function.kind)
            .collect();
        if function.over.is_some() {
            self.diverges(&name);
            if let Some(block) = self.blocks.last_mut() {
                block.window = true;
            }
            return Ok(());
        }
        let clauses = function.filter.is_some() || !function.within_group.is_empty();
        // In a subquery, what is not known may be an aggregate; at the top level it is refused by itself.
        let unknown = kinds.is_empty() && !is_syntax(&name) && self.blocks.len() > 1;
        if kinds.contains(&FunctionKind::Aggregate) || clauses || unknown {
            if !ORDERLESS.contains(&&*name) {
                self.diverges(&name);
            }
            // An aggregate of outer columns belongs to an outer block.
            let all = self.outward > outward;
            let skip = if all {
                0
            } else {
                self.blocks.len().saturating_sub(1)
            };
            self.blocks
                .iter_mut()
                .skip(skip)
                .for_each(|block| block.aggregate = true);
        }
        Ok(())
    }
}

/// Whether what a function in a trigger gives is another value on each shard, where one server would have one for all rows or a
/// sequence of its own.
pub(in crate::plan) fn differs_in_triggers(context: &Context<'_>, name: &str) -> bool {
    if is_syntax(name) {
        return is_momentary(name);
    }
    let mut known = context.relations.functions(context.search_path, None, name);
    known.any(|function| {
        let builtin = function.is_builtin(name);
        let moment = is_momentary(name) && name != "version";
        let volatile = function.volatility == Volatility::Volatile;
        let computes = builtin && only_computes(name);
        let of_its_server = builtin && name != "version" && relations::differs(name);
        !builtin && function.volatility != Volatility::Immutable
            || moment
            || of_its_server
            || volatile && !computes
    })
}

/// Syntax that looks like a function but is none of the catalogue's.
fn is_syntax(name: &str) -> bool {
    matches!(
        name,
        "array"
            | "coalesce"
            | "current_catalog"
            | "current_date"
            | "current_role"
            | "current_time"
            | "current_timestamp"
            | "current_user"
            | "greatest"
            | "grouping"
            | "least"
            | "localtime"
            | "localtimestamp"
            | "nullif"
            | "row"
            | "session_user"
            | "system_user"
            | "user"
    )
}

/// Volatile functions that leave nothing behind, in the database or in the session.
pub(in crate::plan) fn only_computes(name: &str) -> bool {
    is_own(name)
}

/// Functions that take or give back advisory locks.
fn is_advisory(name: &str) -> bool {
    name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_")
}

/// Stable functions that answer from the state of their server: a replica is always read-only, and counts its own work.
fn differs_on_a_replica(name: &str) -> bool {
    name == "current_setting" || name.starts_with("pg_stat_get_")
}

/// Functions that look something up in the catalogue: OIDs differ from shard to shard, so one shard answers for all.
pub(in crate::plan) fn reads_catalogue(name: &str) -> bool {
    // The name of a type is the same everywhere.
    if name == "pg_typeof" {
        return false;
    }
    let prefixes = ["pg_", "has_", "to_reg"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || name == "format_type"
        || name.ends_with("_description")
}

/// Whether a stable function's result may differ from server to server or from moment to moment.
fn differs(name: &str, builtin: bool) -> bool {
    !builtin || relations::differs(name)
}

fn momentary(name: &str) -> Refusal {
    Refusal::not_supported(format!("function \"{name}\" is not supported across shards yet"))
        .detail("Each shard would compute a result of its own.")
        .hint("Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.")
}
