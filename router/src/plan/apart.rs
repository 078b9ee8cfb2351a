//! Statements that the shards do not answer by themselves: in a workspace, or with rows to lock that are found first.

use std::sync::Arc;

use sqlparser::ast::Statement;

use super::analyse::Analysis;
use super::merge::{self, Finish};
use super::route::{KeyRoute, Target};
use super::workspace::{self, Workspace};
use super::{Layer, Operator, Plan, Planner, lock};
use crate::sql::Token;

/// A statement that is understood, and its tokens.
pub(super) type Understood<'a> = (&'a Analysis, &'a Statement, &'a [Token]);

impl Planner<'_> {
    /// Plans how PostgreSQL finishes what the shards do with the rows that are given to them.
    pub(super) fn finished(&self, plan: &mut Plan, understood: Understood<'_>) {
        let Operator::Refuse(refusal) = &plan.operator else {
            return;
        };
        if self.context.layer == Layer::Workspace {
            return;
        }
        let (finish, guards) = self.finish(understood);
        plan.guards.extend(guards);
        if let Some(finish) = finish {
            plan.operator = Operator::Workspace(Box::new(Workspace {
                reason: refusal.message.clone(),
                finish: Some(Box::new(finish)),
                ..Workspace::default()
            }));
        }
    }

    /// Plans a workspace where it is needed, or may be.
    pub(super) fn apart(&self, plan: &mut Plan, understood: Understood<'_>) {
        let layer = self.context.layer;
        let forced = match layer != Layer::Auto && !understood.0.locks {
            true => self.workspace("switchyard.layer is set", understood).ok(),
            false => None,
        };
        let forced = forced.filter(|made| layer.wants(made));
        let guards = &mut plan.guards;
        match &mut plan.operator {
            Operator::Refuse(refusal) => match self.instead(&refusal.message, understood, guards) {
                Ok(operator) => plan.operator = operator,
                Err(why) => refusal.explain(&why),
            },
            Operator::PassThrough(Target::Keys(KeyRoute {
                several: Some(refusal),
                ..
            })) => match self.instead(&refusal.message, understood, guards) {
                Ok(operator) => plan.several = several(plan, operator),
                Err(why) => refusal.explain(&why),
            },
            operator @ (Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_))
                if forced.is_some() =>
            {
                if let Some(workspace) = forced {
                    *operator = Operator::Workspace(Box::new(workspace));
                }
            }
            Operator::Merge(merge) if merge.has_open_limit() => {
                // What it is may turn out to be no integer.
                let reason = "the limit is not known for certain";
                if let Ok(workspace) = self.workspace(reason, understood) {
                    plan.several = several(plan, Operator::Workspace(Box::new(workspace)));
                }
            }
            Operator::PassThrough(_)
            | Operator::Append(_)
            | Operator::Merge(_)
            | Operator::Broadcast(_)
            | Operator::Session
            | Operator::Lock(_)
            | Operator::Write(_)
            | Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::Move(_)
            | Operator::Steps(_)
            | Operator::CopyIn(_)
            | Operator::Workspace(_) => {}
        }
    }

    /// What answers where the shards cannot, for this reason; `Err` is why nothing does. Adds the literals that it depends on.
    fn instead(
        &self,
        reason: &str,
        understood: Understood<'_>,
        guards: &mut Vec<u32>,
    ) -> Result<Operator, String> {
        let (analysis, statement, tokens) = understood;
        if analysis.locks {
            let reason = reason.to_owned();
            let lock = lock::lock(analysis, statement, self.sql, tokens, self.context, reason)?;
            return Ok(Operator::Lock(Box::new(lock)));
        }
        let mut workspace = self.workspace(reason, understood)?;
        if self.context.layer != Layer::Workspace {
            let (finish, known) = self.finish(understood);
            workspace.finish = finish.map(Box::new);
            guards.extend(known);
        }
        Ok(Operator::Workspace(Box::new(workspace)))
    }

    pub(super) fn workspace(
        &self,
        reason: &str,
        (analysis, statement, tokens): Understood<'_>,
    ) -> Result<Workspace, String> {
        let text = workspace::Text::of(self.sql, self.tokens);
        let reason = reason.to_owned();
        workspace::workspace(analysis, statement, &text, tokens, self.context, reason)
    }

    fn finish(&self, (analysis, statement, tokens): Understood<'_>) -> (Option<Finish>, Vec<u32>) {
        let text = (self.sql, self.tokens, tokens);
        // The values are counted as one server would.
        match analysis.calls_next {
            true => (None, Vec::new()),
            false => merge::finish(analysis, statement, text, self.scan, self.context),
        }
    }
}

/// The same plan by another operator, for values that lead to several shards.
pub(super) fn several(plan: &Plan, operator: Operator) -> Option<Arc<Plan>> {
    Some(Arc::new(Plan {
        key_params: operator.params(),
        operator,
        ..plan.clone()
    }))
}
