//! The protocol's rules. A test takes each out alone, and shows the shortest run that goes wrong without it.

/// One rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Accepting compares the revision.
    CompareToAccept,
    /// The answer is written before it is sent.
    WriteTheAnswer,
    /// The answer's write compares the revision, and not only which slot it is.
    CompareRevisionToAnswer,
    /// What was decided is not decided again.
    DecideOnce,
    /// Only the answer of the slot that one waited for is decided.
    OwnSlotOnly,
    /// A row older than the answer that one waits for is read again.
    NeverGoBack,
    /// A closed answer stays closed.
    ClosedStaysClosed,
    /// An overtaken uplink leaves the answer of the one above it as it is.
    OvertakenLeavesTheAnswer,
    /// *Done* is told after the answer's step.
    DoneAfterTheAnswer,
    /// Whoever finds an open answer takes it over.
    TakeOverAnswers,
    /// Whoever finds a decided answer sends it while a window is left.
    SendDecidedAgain,
    /// A take-over sends the slot's bytes, and makes none.
    SlotsBytes,
    /// After a write without an answer the row is read, and that is acted on.
    ActOnTheRow,
    /// An answer is decided with what is in the queue at that moment, and an enqueuer asks for it.
    QueueWhenDeciding,
    /// An item stays in the queue until a TX_ACK.
    ItemUntilTxAck,
    /// Nothing to say: nothing is written.
    NothingIsNotWritten,
    /// A repeated confirmed uplink gets its ACK.
    RepeatIsAnswered,
    /// What a gateway refuses in RX1 goes out again in RX2 as it is.
    SameBytesInRx2,
    /// An event that is not out is kept before its slot is replaced.
    KeepBeforeReplacing,
    /// Behind an event that waits, an event waits too.
    WaitBehind,
    /// An uplink that was overtaken is accepted for its event.
    AcceptOvertaken,
    /// The loser of a race reads again, and says nothing before.
    LoserReadsAgain,
    /// The balancer sends what is not done to another worker.
    Redeliver,
    /// What is stored and not resolved is picked up when its balancer is gone.
    Sweep,
    /// An event's id is that of its session and FCntUp.
    IdOfTheUplink,
}

impl Rule {
    pub const ALL: [Self; 25] = [
        Self::CompareToAccept,
        Self::WriteTheAnswer,
        Self::CompareRevisionToAnswer,
        Self::DecideOnce,
        Self::OwnSlotOnly,
        Self::NeverGoBack,
        Self::ClosedStaysClosed,
        Self::OvertakenLeavesTheAnswer,
        Self::DoneAfterTheAnswer,
        Self::TakeOverAnswers,
        Self::SendDecidedAgain,
        Self::SlotsBytes,
        Self::ActOnTheRow,
        Self::QueueWhenDeciding,
        Self::ItemUntilTxAck,
        Self::NothingIsNotWritten,
        Self::RepeatIsAnswered,
        Self::SameBytesInRx2,
        Self::KeepBeforeReplacing,
        Self::WaitBehind,
        Self::AcceptOvertaken,
        Self::LoserReadsAgain,
        Self::Redeliver,
        Self::Sweep,
        Self::IdOfTheUplink,
    ];
}
