//! Where copies are, and which data centre decides.
//!
//! A conditional write at LOCAL_SERIAL is decided by the replicas of one data centre: that of the node which the driver asks.
//! Two servers that ask in two data centres would both win. So where a keyspace spans several, each server is told which
//! one decides, or all of them do.

use std::collections::{BTreeMap, BTreeSet};

use scylla::{
    client::session::Session,
    statement::{Consistency, SerialConsistency},
};

use super::{
    db::{Db, How},
    url::{CqlUrl, Level, Replication},
};
use crate::{OpenError, StoreError};

/// The row of the table `lease` with what all servers of a keyspace in several data centres agree on.
const AGREED: &str = "datacenter";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Home {
    /// The data centre whose nodes are asked; without one, all are.
    pub datacenter: Option<String>,
    /// What all servers must have in common, in the words of a store URL.
    pub agreed: Option<String>,
}

impl Home {
    /// From the nodes and the keyspace, if it is there.
    pub async fn find(session: &Session, url: &CqlUrl) -> Result<Self, OpenError> {
        let nodes = session.get_cluster_state();
        let all = nodes.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
        let failed = |why: String| OpenError::Cql { what: "the question where copies are", why };
        let text = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let answer = session.query_unpaged(text, (&url.keyspace,)).await.map_err(|e| failed(e.to_string()))?;
        let rows = answer.into_rows_result().map_err(|e| failed(e.to_string()))?;
        let row = rows.maybe_first_row::<(BTreeMap<String, String>,)>().map_err(|e| failed(e.to_string()))?;
        let replicas = match row {
            Some((replication,)) => replicas(&replication, &all),
            None => planned(url, &all),
        };
        Self::of(url, &all, &replicas)
    }

    fn of(url: &CqlUrl, all: &BTreeSet<String>, replicas: &BTreeSet<String>) -> Result<Self, OpenError> {
        let refused = |why| Err(OpenError::CqlDatacenter { keyspace: url.keyspace.clone(), why });
        let spans = replicas.len() > 1;
        match (&url.datacenter, url.level) {
            (Some(named), _) if !all.contains(named) => {
                refused(format!("datacenter={named} is none of the database's data centres: {}", words(all)))
            }
            (Some(named), Level::LocalQuorum) if !replicas.contains(named) => {
                refused(format!("it has no copies in datacenter={named}, but in {}", words(replicas)))
            }
            (None, Level::LocalQuorum) if spans => refused(format!(
                "it has copies in several data centres ({}), where consistency=local_quorum could let each decide for itself: \
                 name the same one in the store URL of every server (datacenter={}), or let all of them decide \
                 (consistency=quorum)",
                words(replicas),
                replicas.first().map_or("", String::as_str),
            )),
            (None, Level::LocalQuorum) if all.len() > 1 => {
                Ok(Self { datacenter: replicas.first().cloned(), agreed: None })
            }
            (named, level) => {
                let agreed = match (named, level) {
                    (Some(named), Level::LocalQuorum) => format!("consistency=local_quorum&datacenter={named}"),
                    _ => "consistency=quorum".into(),
                };
                Ok(Self { datacenter: named.clone(), agreed: spans.then_some(agreed) })
            }
        }
    }
}

/// Data centres with copies, from a keyspace's replication.
fn replicas(replication: &BTreeMap<String, String>, all: &BTreeSet<String>) -> BTreeSet<String> {
    let class = replication.get("class").map_or("", String::as_str);
    if !class.ends_with("NetworkTopologyStrategy") {
        // It puts copies anywhere.
        return all.clone();
    }
    let copies = replication.iter().filter(|(name, copies)| *name != "class" && *copies != "0");
    copies.map(|(name, _)| name.clone()).collect()
}

/// Those of a keyspace that has yet to be made.
fn planned(url: &CqlUrl, all: &BTreeSet<String>) -> BTreeSet<String> {
    match (&url.replication, &url.datacenter) {
        (Replication::PerDatacenter(copies), _) => copies.iter().map(|(name, _)| name.clone()).collect(),
        (Replication::Unsaid, Some(named)) => BTreeSet::from([named.clone()]),
        (Replication::Unsaid, None) => all.clone(),
    }
}

fn words(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Refuses to run beside servers that let others decide. Only the first of all needs more than its own data centre for it.
pub(super) async fn agree(db: &Db) -> Result<(), OpenError> {
    let Some(mine) = &db.home.agreed else { return Ok(()) };
    let failed = |e: StoreError| OpenError::Cql { what: "the agreement which data centre decides", why: e.to_string() };
    let read = "SELECT holder FROM $.lease WHERE name = ?";
    let plain = db.prepare(How::Read, read).await?;
    let mut known: Option<(String,)> = db.row_once_ours(&plain, (AGREED,)).await.map_err(failed)?;
    if known.is_none() {
        let first = "INSERT INTO $.lease (name, holder, until) VALUES (?, ?, 0) IF NOT EXISTS";
        let (mut first, mut serial) = (db.prepare(How::Cas, first).await?, db.prepare(How::Serial, read).await?);
        first.set_serial_consistency(Some(SerialConsistency::Serial));
        first.set_consistency(Consistency::Quorum);
        serial.set_consistency(Consistency::Serial);
        let made = db.cas(&first, (AGREED, mine)).await;
        known = db.row(&serial, (AGREED,)).await.map_err(failed)?;
        if known.is_none() {
            made.map_err(failed)?;
        }
    }
    match known {
        Some((known,)) if known != *mine => Err(OpenError::CqlDatacenter {
            keyspace: db.keyspace.clone(),
            why: format!(
                "its servers run with {known} and this one with {mine}: they must agree, for else two could decide the same thing"
            ),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> BTreeSet<String> {
        text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn map(class: &str, copies: &[(&str, &str)]) -> BTreeMap<String, String> {
        let class = ("class".to_owned(), format!("org.apache.cassandra.locator.{class}"));
        copies.iter().map(|(name, n)| ((*name).to_owned(), (*n).to_owned())).chain([class]).collect()
    }

    fn home(query: &str, all: &str, replicas: &str) -> Result<Home, String> {
        let url = CqlUrl::parse(&format!("cql://db/field{query}")).unwrap();
        Home::of(&url, &names(all), &names(replicas)).map_err(|e| e.to_string())
    }

    #[test]
    fn copies_are_where_the_keyspace_says() {
        let all = names("east,west");
        assert_eq!(replicas(&map("NetworkTopologyStrategy", &[("east", "3"), ("west", "0")]), &all), names("east"));
        assert_eq!(replicas(&map("NetworkTopologyStrategy", &[("east", "3"), ("west", "2")]), &all), all);
        assert_eq!(replicas(&map("SimpleStrategy", &[("replication_factor", "3")]), &all), all);
        let url = |query| CqlUrl::parse(&format!("cql://db/field{query}")).unwrap();
        assert_eq!(planned(&url(""), &all), all);
        assert_eq!(planned(&url("?datacenter=west"), &all), names("west"));
        assert_eq!(planned(&url("?replication=east:3"), &all), names("east"));
    }

    #[test]
    fn one_data_centre_needs_no_words() {
        assert_eq!(home("", "east", "east"), Ok(Home::default()));
        assert_eq!(home("?datacenter=east", "east", "east").unwrap().datacenter.as_deref(), Some("east"));
        let found = home("", "east,west", "west").unwrap();
        assert_eq!((found.datacenter.as_deref(), found.agreed), (Some("west"), None), "nobody else has copies");
    }

    #[test]
    fn where_copies_span_data_centres_the_one_that_decides_is_named() {
        let error = home("", "east,west", "east,west").unwrap_err();
        assert!(error.contains("keyspace field") && error.contains("east, west"), "{error}");
        assert!(error.contains("datacenter=east") && error.contains("consistency=quorum"), "{error}");
        let east = home("?datacenter=east", "east,west", "east,west").unwrap();
        let west = home("?datacenter=west", "east,west", "east,west").unwrap();
        let both = home("?consistency=quorum", "east,west", "east,west").unwrap();
        let both_from_east = home("?consistency=quorum&datacenter=east", "east,west", "east,west").unwrap();
        assert!(east.agreed.is_some() && east.agreed != west.agreed && both.agreed != east.agreed);
        assert_eq!((both.datacenter, both.agreed), (None, both_from_east.agreed));
    }

    #[test]
    fn a_data_centre_that_is_not_there_is_named() {
        let error = home("?datacenter=north", "east,west", "east").unwrap_err();
        assert!(error.contains("datacenter=north") && error.contains("east, west"), "{error}");
        let error = home("?datacenter=west", "east,west", "east").unwrap_err();
        assert!(error.contains("no copies in datacenter=west"), "{error}");
        assert!(
            home("?datacenter=west&consistency=quorum", "east,west", "east").is_ok(),
            "its nodes can ask the others"
        );
    }
}
