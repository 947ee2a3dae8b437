//! What stops when an operator takes a server away: asked about before it is done, at every door.

use alloc::{format, string::String, vec::Vec};

use super::{ErrorKind, Reply, Request, Role, Server};

/// States of a worker that gets frames. One that is suspect was there 30 ms ago.
const AT_WORK: [&str; 3] = ["ready", "overloaded", "suspect"];

impl Server {
    /// Whether it is a worker that gets frames.
    pub fn takes_frames(&self) -> bool {
        self.kind() == Role::Worker && AT_WORK.contains(&self.state.as_str())
    }

    /// Whether it is a balancer that answered when it was asked lately.
    pub fn answers(&self) -> bool {
        self.kind() == Role::Balancer && !matches!(self.state.as_str(), "gone" | "suspect")
    }

    /// Whether gateways have no other way in.
    pub fn is_only_balancer(&self, servers: &[Self]) -> bool {
        let balances = |one: &Self| one.kind() == Role::Balancer && one.state != "gone";
        balances(self) && servers.iter().filter(|server| balances(server)).count() == 1
    }
}

/// What stops for everybody when this is done; `None` if nothing does.
pub fn what_stops(request: &Request, servers: &[Server]) -> Option<String> {
    let (Request::Drain { name, on: true, .. } | Request::Remove { name, .. }) = request else { return None };
    let (mine, others): (Vec<&Server>, Vec<&Server>) = at_work(servers).partition(|server| server.name == *name);
    (!mine.is_empty() && others.is_empty()).then(|| {
        format!(
            "{name} is the last worker that takes frames: without it no uplink is acknowledged and no device is answered, \
             until another worker is ready"
        )
    })
}

fn at_work(servers: &[Server]) -> impl Iterator<Item = &Server> {
    servers.iter().filter(|server| server.takes_frames())
}

impl Request {
    /// Whether [`what_stops`] has to be asked first: it takes a server away, and nobody has said that this is meant.
    pub fn wants_a_second_look(&self) -> bool {
        matches!(self, Self::Drain { on: true, sure: false, .. } | Self::Remove { sure: false, .. })
    }

    /// The same question, by somebody who knows what stops.
    pub fn meant(mut self) -> Self {
        use Request::{Drain, IntegrationDrop, Remove, RotateCa};
        if let Remove { sure, .. } | Drain { sure, .. } | IntegrationDrop { sure, .. } | RotateCa { sure, .. } =
            &mut self
        {
            *sure = true;
        }
        self
    }

    /// What is answered instead, if something would stop that nobody has agreed to, or if nobody can say whether it would.
    /// `servers`: what came back for [`Request::Servers`].
    pub fn second_look(&self, servers: &Reply) -> Option<Reply> {
        if !self.wants_a_second_look() {
            return None;
        }
        let message = match servers {
            Reply::Servers { servers } => what_stops(self, servers)?,
            Reply::Error { message, .. } => format!("whether another worker takes frames is not known: {message}"),
            _ => "whether another worker takes frames is not known: the answer is of another version".into(),
        };
        Some(Reply::Error { kind: ErrorKind::Unconfirmed, message })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn worker(name: &str, state: &str) -> Server {
        Server { name: name.into(), role: "worker".into(), state: state.into(), ..Server::default() }
    }

    #[test]
    fn only_the_last_worker_at_work_is_asked_about() {
        let edge = Server { role: "balancer".into(), ..worker("edge", "ready") };
        let drain = Request::drain("a", true);
        let alone = vec![edge.clone(), worker("a", "ready"), worker("b", "draining"), worker("c", "gone")];
        assert!(what_stops(&drain, &alone).is_some_and(|what| what.contains("no uplink is acknowledged")));
        assert!(what_stops(&Request::remove("a"), &alone).is_some());
        for nothing in [Request::drain("a", false), Request::drain("b", true), Request::remove("c"), Request::Servers] {
            assert_eq!(what_stops(&nothing, &alone), None, "{nothing:?}");
        }
        let two = [alone.clone(), vec![worker("d", "overloaded")]].concat();
        assert_eq!(what_stops(&drain, &two), None);
        let (alone, two) = (Reply::Servers { servers: alone }, Reply::Servers { servers: two });
        assert!(drain.second_look(&alone).is_some() && drain.second_look(&two).is_none());
        assert!(drain.meant().second_look(&alone).is_none());
    }

    #[test]
    fn what_nobody_can_say_is_asked_about_too() {
        let away = Reply::Error { kind: ErrorKind::Unavailable, message: "no answer came in time".into() };
        for request in [Request::drain("a", true), Request::remove("a")] {
            let first = request.second_look(&away);
            let Some(Reply::Error { kind: ErrorKind::Unconfirmed, message }) = first else { panic!("{first:?}") };
            assert!(message.contains("not known: no answer came in time"), "{message}");
            assert_eq!(request.meant().second_look(&away), None, "who means it is not held up");
        }
        assert_eq!(Request::drain("a", false).second_look(&away), None, "taking it back stops nothing");
    }
}
