//! Why the coordinator does not do what it was asked, in the words of Kafka's error codes; the broker maps them.

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The group's id is empty or otherwise impossible.
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// There is no such group, or it is of the other kind.
    #[error("{0}")]
    GroupIdNotFound(String),
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// The group is full.
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached,
    /// The member is not in the group.
    #[error("the member is not in the group")]
    UnknownMemberId,
    /// The member has to come back with the id it is given.
    #[error("the member has to come back with the id it is given")]
    MemberIdRequired,
    /// A newer process has taken the static member's place.
    #[error("another member has the same group.instance.id now")]
    FencedInstanceId,
    /// The static member's place is taken by a process that is still alive.
    #[error("the group.instance.id is in use by another member")]
    UnreleasedInstanceId,
    /// The generation is over.
    #[error("the generation is not the group's")]
    IllegalGeneration,
    /// Members are joining.
    #[error("the group rebalances")]
    RebalanceInProgress,
    /// The protocols have nothing in common with those of the group.
    #[error("{0}")]
    InconsistentGroupProtocol(String),
    /// The session timeout is outside of what the broker allows.
    #[error("the session timeout is not between group.min.session.timeout.ms and group.max.session.timeout.ms")]
    InvalidSessionTimeout,
    /// The member's epoch is not the one it should have; it must join again.
    #[error("{0}")]
    FencedMemberEpoch(String),
    /// The member's epoch is out of date; its next heartbeat brings the new one.
    #[error("the member epoch is out of date")]
    StaleMemberEpoch,
    /// There is no such assignor.
    #[error("{0}")]
    UnsupportedAssignor(String),
    /// The regular expression can't be read.
    #[error("{0}")]
    InvalidRegularExpression(String),
    /// Something else about the request is impossible.
    #[error("{0}")]
    InvalidRequest(String),
    /// The metadata of a commit is longer than `offset.metadata.max.bytes`.
    #[error("the metadata of the offset is too long")]
    OffsetMetadataTooLarge,
    /// The group still reads the topic.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// There is no such topic or partition.
    #[error("there is no such topic or partition")]
    UnknownTopicOrPartition,
    /// There is an open transaction over the offset.
    #[error("an open transaction holds the offset")]
    UnstableOffsetCommit,
}
