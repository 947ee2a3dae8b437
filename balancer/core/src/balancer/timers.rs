//! What happens when nothing happens.

use alloc::vec::Vec;
use core::time::Duration;

use limpet_shared::{Now, Rule};

use super::Balancer;
use crate::{
    action::{Event, WorkerId},
    health::{Verdict, next_step},
};

impl Balancer {
    /// When [`Self::on_timeout`] must be called (monotonic), unless another input comes before. Being late for it is
    /// taken as a sign that the balancer did not run.
    pub fn next_timeout(&mut self) -> Option<Duration> {
        // What is overdue is due now; it is no stall that nobody asked before.
        let next = self.earliest().map(|at| at.max(self.last_input));
        self.clock.promise(next);
        next
    }

    fn earliest(&self) -> Option<Duration> {
        let verdicts = self.workers.iter().filter_map(|(_, worker)| {
            let at = worker.vitals.next(&self.config)?;
            // A verdict that is held back is due when the guard lets go.
            let held = self.guard.until().filter(|_| self.held_back && at <= self.judged);
            Some(self.clock.mono(held.unwrap_or(at)))
        });
        let weights = self.workers.iter().filter_map(|(_, worker)| worker.counts_at);
        let removals = self.workers.iter().filter_map(|(_, worker)| worker.removed_by);
        let steps = self.workers.iter().filter_map(|(_, worker)| next_step(worker.full_at?, self.ring_built));
        let rest = [
            self.retention.next_deadline(),
            self.downlinks.next_deadline(),
            self.sightings.next_deadline(),
            self.workers.next_forgiven(self.suspects_at),
            self.stop_by,
        ];
        verdicts.chain(steps).chain(weights).chain(removals).chain(rest.into_iter().flatten()).min()
    }

    /// The time has come that [`Self::next_timeout`] named.
    pub fn on_timeout(&mut self, now: Now) {
        self.tick(now);
        self.judge(now);
        self.close_removed(now);
        self.rebuild_ring_if_due(now);
        while let Some(id) = self.retention.pop_due(now.mono) {
            self.on_frame_due(now, id);
        }
        self.downlinks_due(now);
        self.tell_sightings(now);
    }

    fn rebuild_ring_if_due(&mut self, now: Now) {
        let epoch = self.routing.epoch();
        self.rebuild_ring(now);
        self.tell_suspects(now);
        self.tell_room(now);
        if self.routing.epoch() != epoch {
            self.rescue(now);
        }
    }

    /// Passes verdicts on workers that were silent for too long.
    pub(super) fn judge(&mut self, now: Now) {
        let live = self.live(now);
        self.judged = live;
        let on_trial: Vec<(WorkerId, Verdict, Verdict)> = self
            .workers
            .iter()
            .filter(|(_, w)| w.vitals.verdict != Verdict::Ejected)
            .map(|(id, w)| (id, w.vitals.verdict, w.vitals.due(live, &self.config)))
            .collect();
        let is_quiet = |id| self.workers.get(id).is_some_and(|w| w.vitals.is_quiet(live, &self.config));
        let silent = on_trial.iter().filter(|(id, _, due)| *due != Verdict::Well || is_quiet(*id)).count();
        if self.config.keeps(Rule::HoldVerdicts) && !self.guard.passes(silent, on_trial.len(), live) {
            let is_needed = on_trial.iter().any(|(_, is, due)| is != due);
            if is_needed && !self.held_back {
                self.event(Event::VerdictsHeld { silent, of: on_trial.len() });
            }
            self.held_back = is_needed;
            return;
        }
        self.held_back = false;
        let worse: Vec<(WorkerId, Verdict)> =
            on_trial.into_iter().filter(|(_, is, due)| is != due).map(|(id, _, due)| (id, due)).collect();
        if worse.is_empty() {
            return;
        }
        for &(id, verdict) in &worse {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.vitals.verdict = verdict;
            }
            self.announce(id);
        }
        self.workers_changed(now);
    }
}
