//! ListPartitionReassignments (key 46): no partition is ever on its way to another broker, so the list is empty
//! (KIP-455). Kafka leaves partitions that it does not know out of the list, too.

use ottla_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::Context;

pub(super) fn handle(
    _context: &Context<'_>,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse { error_message: None, ..Default::default() }
}
