//! Who this data directory belongs to: cluster, node and directory id, written at the first start.
//!
//! The file is `identity`, a few `key=value` lines and a checksum over them (`docs/formats/identity.md`). Unreadable
//! means refuse to start, never start empty (rule L7): a directory that forgets who it is would become an empty new
//! cluster on top of somebody's data. What is not here: what the cluster agreed on; that is the metadata log.

use std::{collections::BTreeMap, path::Path};

use ottla_log::{Disk, write_atomically};
use ottla_types::BrokerId;
use uuid::Uuid;

/// The file's name in the data directory.
pub(crate) const FILE: &str = "identity";
const VERSION: &str = "1";

/// The ids of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster the directory belongs to: 22 characters of URL-safe base64, as Kafka prints it. Empty while a new
    /// cluster is being founded.
    pub cluster_id: String,
    /// The broker's `node.id`.
    pub node_id: BrokerId,
    /// This directory's own id, so that a replaced disk is never mistaken for the old one (rule M2).
    pub directory_id: Uuid,
    /// The port that the node chose for itself at its first start, where nobody said one: the others look for it there.
    pub port: Option<u16>,
    /// The node was taken into a cluster and has not heard of it yet: it may be without metadata.
    pub joining: bool,
}

/// The identity file is there but cannot be believed.
#[derive(Debug, thiserror::Error)]
#[error("the file `identity` is damaged ({0}); restore it from a backup, the data beside it belongs to its ids")]
pub struct DamagedIdentity(String);

impl Identity {
    fn to_text(&self) -> String {
        let mut body = format!(
            "version={VERSION}\ncluster.id={}\nnode.id={}\ndirectory.id={}\n",
            self.cluster_id, self.node_id, self.directory_id
        );
        if let Some(port) = self.port {
            body.push_str(&format!("port={port}\n"));
        }
        if self.joining {
            body.push_str("joining=true\n");
        }
        format!("{body}crc32c={:08x}\n", crc(body.as_bytes()))
    }

    fn from_text(text: &str) -> Result<Identity, DamagedIdentity> {
        let damaged = |what: &str| DamagedIdentity(what.to_owned());
        let (body, checksum) = text.rsplit_once("crc32c=").ok_or_else(|| damaged("no checksum"))?;
        if u32::from_str_radix(checksum.trim_end(), 16) != Ok(crc(body.as_bytes())) {
            return Err(damaged("the checksum does not match"));
        }
        let fields: BTreeMap<&str, &str> = body.lines().filter_map(|line| line.split_once('=')).collect();
        let field = |key: &str| fields.get(key).copied().ok_or_else(|| damaged(&format!("{key} is missing")));
        if field("version")? != VERSION {
            return Err(damaged("written by a newer Ottla"));
        }
        Ok(Identity {
            cluster_id: field("cluster.id")?.to_owned(),
            node_id: BrokerId(field("node.id")?.parse().map_err(|_| damaged("node.id is no number"))?),
            directory_id: field("directory.id")?.parse().map_err(|_| damaged("directory.id is no UUID"))?,
            port: fields.get("port").map(|port| port.parse().map_err(|_| damaged("port is no port"))).transpose()?,
            joining: fields.get("joining") == Some(&"true"),
        })
    }

    /// The identity of `dir`, or `None` where none was ever written.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, LoadIdentityError> {
        let path = dir.join(FILE);
        if !disk.exists(&path)? {
            return Ok(None);
        }
        let text = String::from_utf8(disk.read(&path)?).map_err(|_| DamagedIdentity("it is not text".into()))?;
        Ok(Some(Identity::from_text(&text)?))
    }

    /// Writes the identity so that it survives a power cut.
    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
        write_atomically(disk, &dir.join(FILE), self.to_text().as_bytes())
    }
}

/// Why an identity could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadIdentityError {
    /// The file cannot be read.
    #[error("cannot read the file `identity`: {0}")]
    Io(#[from] std::io::Error),
    /// The file makes no sense.
    #[error(transparent)]
    Damaged(#[from] DamagedIdentity),
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let cluster_id = "ASNFZ4mrze_-3LqYdlQyEA".into();
        let directory_id = Uuid::from_u128(9);
        Identity { cluster_id, node_id: BrokerId(7), directory_id, port: Some(9093), joining: true }
    }

    #[test]
    fn identity_survives_its_text_form() {
        assert_eq!(Identity::from_text(&identity().to_text()).unwrap(), identity());
    }

    #[test]
    fn l7_a_changed_identity_is_refused_at_every_byte() {
        let text = identity().to_text();
        for position in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Identity::from_text(&changed).is_err(), "byte {position} of {changed:?}");
        }
    }
}
