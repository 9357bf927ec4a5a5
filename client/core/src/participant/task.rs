//! Plans, publications and models: what a client accepts of them. Nothing is adopted before it was verified.

use super::contribution::Samplers;
use super::{ENTERED, Effect, Participant, Refusal, Task, unexpected};
use crate::memo::{Agreed, Announced};
use crate::policy::TotalExceeded;
use crate::record::{Record, TaskRecord};
use bytes::Bytes;
use fedveil_privacy::Sampling;
use fedveil_proto::Kind;
use fedveil_proto_plan::{SignedPlan, Terms};
use fedveil_provenance::{self as provenance, Digest, Head, Lineage, Pins, Publication};
use std::sync::Arc;

impl Participant {
    pub(super) fn on_plan(&mut self, bytes: &Bytes) -> Result<Vec<Effect>, Refusal> {
        let (signer, policy) = (&self.credentials.signer, &self.policy);
        let check = || {
            let plan = SignedPlan::verify(bytes, signer)?;
            let terms = plan.plan().check()?;
            let allowed = policy.check(plan.plan(), &terms);
            let noise = Samplers::new(&terms.guarantee).into();
            Ok(Agreed { plan: plan.into(), terms: terms.into(), noise, allowed })
        };
        let Agreed { plan, terms, noise, allowed } = match &self.memo {
            Some(memo) => memo.plans.get((signer.to_bytes(), policy.clone()), bytes, check),
            None => check(),
        }?;
        allowed?;
        let digest = plan.digest();
        let head = self.enter(&plan, &terms)?;
        let pins = Pins {
            signers: vec![self.credentials.signer],
            threshold: 1,
            origin: plan.origin(),
            task_digest: digest,
            privacy: terms.privacy_claim(plan.plan(), 0.0),
        };
        let lineage = Lineage::new(pins, head);
        let join = lineage.known_size().to_be_bytes().to_vec();
        let clip = (0, terms.guarantee.grid.clip());
        self.task =
            Some(Task { plan, terms, noise, lineage, incoming: None, model: None, clip, unmasked: 0 });
        self.leave_round();
        Ok(vec![Effect::Persist(self.record.clone()), Effect::Send(Kind::Join, join)])
    }

    /// Makes the task one of the record's, if the rest of it fits what the owner allows in all. Gives the place in the
    /// log up to which the client has verified its history.
    fn enter(&mut self, plan: &SignedPlan, terms: &Terms) -> Result<Option<Head>, TotalExceeded> {
        let digest = plan.digest();
        let known = self.record.tasks.get(&digest);
        let entry = TaskRecord {
            name: plan.plan().task.clone(),
            delta: plan.plan().privacy.delta,
            loss: terms.guarantee.task_loss(),
            last_round: known.map_or(0, |task| task.last_round),
            last_update: known.map_or(0, |task| task.last_update),
            last_judged: known.map_or(0, |task| task.last_judged),
            participations: known.map_or(0, |task| task.participations),
            contributions: known.map_or(Vec::new(), |task| task.contributions.clone()),
            head: known.and_then(|task| task.head),
            model: known.and_then(|task| task.model),
        };
        let (head, done) = (entry.head, entry.participations);
        let mut record = Record::clone(&self.record);
        record.tasks.insert(digest, entry);
        // A plan without noise was allowed by name, whatever the limits on ε.
        if terms.guarantee.has_noise() {
            self.policy.check_total(&record, &digest, terms.most_charges().saturating_sub(done))?;
        }
        self.record = record.into();
        Ok(head)
    }

    /// A publication waits for its model, unless newer ones follow it.
    pub(super) fn on_publication(&mut self, bytes: &Bytes) -> Result<Vec<Effect>, Refusal> {
        let task = self.task.as_mut().ok_or(unexpected(Kind::Publication, "before a plan"))?;
        if task.incoming.is_some() {
            return Err(unexpected(Kind::Publication, "before the model of the one before"));
        }
        let (lineage, terms) = (&task.lineage, &task.terms);
        let check = || {
            let accepted = lineage.accept(bytes)?;
            let Publication { leaf_index, .. } = Publication::parse(bytes)?;
            let is_possible =
                terms.can_have_spent(accepted.round.privacy.epsilon_spent, accepted.round.round);
            Ok::<_, provenance::Refusal>(Announced { accepted, leaf_index, is_possible })
        };
        let Announced { accepted, leaf_index, is_possible } = match &self.memo {
            Some(memo) => {
                let signer = self.credentials.signer.to_bytes();
                let key = (task.plan.digest(), signer, lineage.head().copied());
                memo.publications.get(key, bytes, check)
            }
            None => check(),
        }?;
        let (claimed, round) = (accepted.round.privacy.epsilon_spent, accepted.round.round);
        let is_charged =
            task.unmasked == 0 || claimed >= task.terms.guarantee.epsilon(task.unmasked) * (1.0 - 1e-6);
        if !(is_possible && is_charged) {
            return Err(Refusal::Spent { claimed, round, least: task.unmasked });
        }
        if let Some(indicator) = &task.terms.guarantee.indicator {
            let (since, before) = task.clip;
            let found = accepted.round.privacy.clip_norm;
            task.clip = (round, indicator.clip.check_step(before, found, round.saturating_sub(since))?);
        }
        if leaf_index + 1 < accepted.head.log.size {
            task.lineage.apply(&accepted);
        } else {
            task.incoming = Some(accepted);
        }
        Ok(Vec::new())
    }

    /// A new model ends the round, whatever the client was doing in it. Without a publication it can only be the one
    /// that the client has verified before.
    pub(super) fn on_model(&mut self, model: Bytes) -> Result<Vec<Effect>, Refusal> {
        self.leave_round();
        let task = self.task.as_mut().ok_or(unexpected(Kind::Model, "before a plan"))?;
        let record = Arc::make_mut(&mut self.record).tasks.get_mut(&task.plan.digest()).expect(ENTERED);
        let digest = match &self.memo {
            Some(memo) => memo.digests.get((), &model, || Digest::of(&model)),
            None => Digest::of(&model),
        };
        match task.incoming.take() {
            Some(accepted) => {
                accepted.check_digest(digest)?;
                task.lineage.apply(&accepted);
                record.head = task.lineage.head().copied();
                record.model = Some(digest);
            }
            None if record.model == Some(digest) => {}
            None => return Err(unexpected(Kind::Model, "without its publication")),
        }
        task.model = Some(digest);
        let round = record.head.map_or(0, |head| head.round);
        if task.terms.guarantee.claim.sampling != Sampling::Full {
            record.participations = task.charged_after(record, round);
        }
        Ok(vec![Effect::Persist(self.record.clone()), Effect::Adopted { round, model }])
    }
}
