//! `switchyard.consistent_read`: reads of several shards that see each transaction on several shards whole or not at all.
//!
//! The snapshots of all shards are taken while a fence stands ([`crate::two_phase::fence`]): those of a REPEATABLE READ block when its first statement comes,
//! those of a statement outside a block in one that is begun for it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the operators listed are those that read"
)]

use std::sync::Arc;
use std::time::Duration;

use switchyard_schema::{ShardIndex, ShardSet};
use tokio::time::timeout;

use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Access, Command, Operator, Plan, Refusal};
use crate::session::Session;
use crate::session::transaction::commit::Step;
use crate::topology::Node;
use crate::two_phase::fence::Fence;

/// What takes the snapshot of a transaction that has none.
const SNAPSHOT: &str = "SELECT 1";
/// The longest that a fence is waited for, with its turn, what it stands on, and what it waits for itself.
const PATIENCE: Duration = Duration::from_secs(6);

impl Session {
    /// Sees to it, before a statement with this plan runs on these shards, that what it reads is of one cut. Outside a block one is begun for it, which
    /// ends with it.
    pub(in crate::session) async fn cut_before(
        &mut self,
        plan: &Plan,
        shards: &ShardSet,
    ) -> Result<(), Trouble> {
        if !self.consistent_read || self.database.shards.len() < 2 {
            return Ok(());
        }
        self.cut_block(plan).await?;
        let several = reads_several(plan, shards);
        match &self.block {
            None if several && !is_for_block(plan) => self.begin_cut().await,
            Some(block) if several && !block.is_cut && block.failed.is_none() => {
                let message = "a consistent read of several shards in a READ COMMITTED transaction is not supported";
                let refusal = Refusal::certain("0A000", message).hint(
                    "Use BEGIN ISOLATION LEVEL REPEATABLE READ, or SET switchyard.consistent_read = off.",
                );
                Err(Failure::Refused(Box::new(refusal)).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes the snapshots of a block that keeps them, before the first statement that would.
    pub(in crate::session) async fn cut_block(&mut self, plan: &Plan) -> Result<(), Trouble> {
        let is_due = |block: &Block| {
            block.consistent && !block.is_cut && block.failed.is_none() && block.keeps_snapshot()
        };
        let several = self.database.shards.len() > 1;
        match self.block.as_ref().is_some_and(is_due) && several && needs_snapshot(plan) {
            true => self.take_cut().await,
            false => Ok(()),
        }
    }

    /// A statement has been answered for which a block was begun: it ends with it.
    pub(in crate::session) async fn end_cut(&mut self) -> Result<(), Trouble> {
        let Some(block) = self.block.as_ref().filter(|block| block.is_cut) else {
            return Ok(());
        };
        match block.failed.is_some() {
            true => self.abort_implicit().await,
            false => self.commit_implicit().await,
        }
    }

    /// Begins a block for a statement.
    async fn begin_cut(&mut self) -> Result<(), Trouble> {
        // What a batch has begun on a backend has a snapshot.
        self.let_go().await?;
        if !self.batch.is_empty() && self.participants.iter().any(|held| held.needs_sync) {
            return Err(Failure::Unsupported {
                what: "a consistent read of several shards behind other statements of a batch"
                    .into(),
                hint: "Send Sync first, or begin a transaction block.",
            }
            .into());
        }
        self.block = Some(Block::of_snapshot(&self.settings));
        self.take_cut().await
    }

    /// Takes the snapshots of all shards.
    async fn take_cut(&mut self) -> Result<(), Trouble> {
        if self
            .participants
            .iter()
            .any(|held| held.in_block && !held.is_primary)
        {
            return Err(Failure::Unsupported {
                what: "a consistent read in a block that has begun on a replica".into(),
                hint: "SET what is to hold in it before it begins.",
            }
            .into());
        }
        let mut steps = Vec::with_capacity(self.database.shards.len());
        let mut nodes = Vec::with_capacity(self.database.shards.len());
        for position in 0..self.database.shards.len() {
            let shard = ShardIndex(u16::try_from(position).map_err(|_| Failure::Retry)?);
            let index = self.join_for_all(shard, Need::Primary).await?;
            let participant = self.participants.at(index)?;
            let name = Arc::clone(&participant.shard_name);
            nodes.push((name, Arc::clone(participant.connection.node())));
            steps.push(Step::new(index, SNAPSHOT, b"SELECT 1"));
        }
        let fence = self.raise_fence(&nodes).await?;
        self.take_steps(&steps).await?;
        if let Some(lost) = self
            .participants
            .iter()
            .find(|held| held.in_block && held.connection.broken)
        {
            let shard = (&*lost.shard_name).into();
            return Err(Failure::ShardLost { shard }.into());
        }
        if !fence.passed().await {
            let reason = "it took too long".into();
            return Err(Failure::NoCut { reason }.into());
        }
        if let Some(block) = &mut self.block {
            block.is_cut = true;
        }
        Ok(())
    }

    /// Raises a fence around these primaries, of which each needs what a fence stands on.
    async fn raise_fence(&mut self, nodes: &[(Arc<str>, Arc<Node>)]) -> Result<Fence, Failure> {
        let raising = timeout(PATIENCE, self.raise_once_installed(nodes));
        raising.await.unwrap_or_else(|_| {
            let reason = "it took too long".into();
            Err(Failure::NoCut { reason })
        })
    }

    async fn raise_once_installed(
        &mut self,
        nodes: &[(Arc<str>, Arc<Node>)],
    ) -> Result<Fence, Failure> {
        let fences = self.worker.services.fences.clone();
        let mut found_gone = 0;
        loop {
            for (shard, node) in nodes {
                self.install_decisions(shard, node).await?;
            }
            let raised = fences.raise(&self.database.name).await;
            let is_gone = nodes.iter().any(|(_, node)| !node.records_decisions());
            match raised {
                // Found to be gone, one shard at a time, it is made again.
                Err(_) if is_gone && found_gone < nodes.len() => found_gone += 1,
                raised => return raised.map_err(|reason| Failure::NoCut { reason }),
            }
        }
    }
}

/// Whether a statement takes a snapshot where it runs.
fn needs_snapshot(plan: &Plan) -> bool {
    match &plan.operator {
        Operator::Refuse(_) => false,
        Operator::Session => {
            matches!(
                plan.command,
                Command::Declare { .. } | Command::Execute { .. }
            )
        }
        _ => !matches!(plan.command, Command::Show(_) | Command::Lock),
    }
}

/// Whether PostgreSQL refuses it outside a block.
fn is_for_block(plan: &Plan) -> bool {
    matches!(plan.command, Command::Declare { hold: false, .. })
}

/// Whether it reads rows of several shards, and does nothing else.
fn reads_several(plan: &Plan, shards: &ShardSet) -> bool {
    let reads = matches!(plan.access, Access::Read | Access::PrimaryRead);
    let several = match &plan.operator {
        Operator::PassThrough(_) | Operator::Append(_) | Operator::Merge(_) => shards.len() > 1,
        Operator::Workspace(workspace) => !workspace.fetches.is_empty(),
        _ => false,
    };
    reads && several
}
