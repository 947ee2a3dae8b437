//! Rules that the promises stand on, each in one place of the code.

/// A simulation has its servers break one of them, to show that its absence is noticed (`limpet_link::host::keeps`). Nobody else can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A worker says *stored* when every reception is in the store.
    SayStoredWhenStored,
    /// A balancer acknowledges when a worker has said *stored*.
    AckWhenStored,
    /// A worker says *done* only when the event is out, or a verdict was reached.
    DoneWhenOut,
    /// A balancer retains a frame until it is done.
    RetainUntilDone,
    /// What a worker did not finish goes to another.
    Redeliver,
    /// What was stored before a balancer was gone is looked for.
    SweepWhenBalancerGone,
    /// An event that its integration does not take waits in the store.
    KeepWaiting,
    /// An event that waits is deleted when it was taken, not before.
    DeleteWhenTaken,
    /// Of a slot that is replaced the events are out, or wait.
    KeepBeforeReplacing,
    /// A slot is marked when its events are out.
    MarkAfterEvents,
    /// A dead worker's slot is finished by somebody else.
    TakeOver,
    /// An event waits behind those of its device that wait.
    WaitBehind,
    /// One worker at a time sends what waits.
    OneSender,
    /// An event has the same id whenever it is told.
    StableId,
    /// Copies of one frame are known by one key.
    OneKeyForCopies,
    /// Copies are waited for.
    WaitForCopies,
    /// An accepted FCntUp is noted with the session.
    NoteCounters,
    /// Nothing is acted on that was not written: neither when somebody else was faster,
    HeedRefusal,
    /// nor when nobody knows what the store did.
    ReadAfterUnknown,
    /// Each downlink has a frame counter of its own.
    CountDown,
    /// An answer is written before it is sent.
    WriteTheAnswer,
    /// Who has accepted an uplink answers it after `reply_delay`.
    AnswerAfterTheEvent,
    /// A balancer forwards each window of a downlink once.
    OncePerWindow,
    /// A confirmed uplink that its device repeats is acknowledged again.
    AnswerRepeats,
    /// A downlink has both windows.
    BothWindows,
    /// If a gateway refuses, another one is asked.
    AskAnother,
    /// Downlinks go to gateways that ask for them.
    OnlyWhoAsks,
    /// Windows are judged by the clock of the balancer that received the uplink.
    BalancersTime,
    /// A queue item is offered until a gateway has transmitted it,
    ItemUntilTxAck,
    /// again if it refused,
    OfferAgain,
    /// and the application is told.
    TellOfItems,
    /// Each JoinAccept has a JoinNonce of its own.
    CountJoinNonces,
    /// A join that somebody else was faster with makes no second session.
    HeedJoinRefusal,
    /// A session that is over is kept for what was acknowledged in its time.
    KeepFormerSessions,
    /// Balancers are told of each gateway that is added.
    TellOfGateways,
    /// A worker that hears from one balancer that it drains tells the others.
    TellOfDrains,
    /// The ring's key is the cluster's.
    ClustersRing,
    /// A change of the ring moves as few gateways as can be.
    StickyRing,
    /// When more than half of the workers fall silent at once, that is no reason to move gateways yet.
    HoldVerdicts,
    /// Silence counts in time that the balancer itself was running.
    OwnStalls,
    /// A worker that comes back gets its gateways back step by step.
    SlowStart,
}

impl Rule {
    /// Each of them.
    pub const ALL: &[Self] = &[
        Self::SayStoredWhenStored,
        Self::AckWhenStored,
        Self::DoneWhenOut,
        Self::RetainUntilDone,
        Self::Redeliver,
        Self::SweepWhenBalancerGone,
        Self::KeepWaiting,
        Self::DeleteWhenTaken,
        Self::KeepBeforeReplacing,
        Self::MarkAfterEvents,
        Self::TakeOver,
        Self::WaitBehind,
        Self::OneSender,
        Self::StableId,
        Self::OneKeyForCopies,
        Self::WaitForCopies,
        Self::NoteCounters,
        Self::HeedRefusal,
        Self::ReadAfterUnknown,
        Self::CountDown,
        Self::WriteTheAnswer,
        Self::AnswerAfterTheEvent,
        Self::OncePerWindow,
        Self::AnswerRepeats,
        Self::BothWindows,
        Self::AskAnother,
        Self::OnlyWhoAsks,
        Self::BalancersTime,
        Self::ItemUntilTxAck,
        Self::OfferAgain,
        Self::TellOfItems,
        Self::CountJoinNonces,
        Self::HeedJoinRefusal,
        Self::KeepFormerSessions,
        Self::TellOfGateways,
        Self::TellOfDrains,
        Self::ClustersRing,
        Self::StickyRing,
        Self::HoldVerdicts,
        Self::OwnStalls,
        Self::SlowStart,
    ];
}
