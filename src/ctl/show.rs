//! Answers for people.

mod regions;

use std::fmt::Write;

use limpet_link::time::rfc3339;
use limpet_shared::{
    UnixMicros,
    admin::{
        ApiKey, Device, DeviceDetail, Gateway, Integration, Reply, Request, RingReport, Role, Server, TokenInfo, User,
        WaitingEvent,
    },
};

/// The text of an answer; it ends with a line break.
pub fn reply(request: &Request, reply: &Reply, now: UnixMicros) -> String {
    match reply {
        Reply::JoinToken { token, expires_at, note } => join_token(request, token, *expires_at, note),
        Reply::Servers { servers } | Reply::RollCall { servers, .. } => servers_table(servers, now),
        Reply::Tokens { tokens } => tokens_table(tokens, now),
        Reply::Ring(ring) => ring_text(request, ring),
        Reply::Gateways { gateways, more, note } => gateways_text(request, gateways, (*more, note), now),
        Reply::Devices { total, devices } => devices_table(request, *total, devices, now),
        Reply::Device(detail) => device_text(detail, now),
        Reply::Regions { regions } => regions::text(request, regions),
        Reply::Integrations { integrations, .. } => integrations_table(integrations, now),
        Reply::IntegrationEvents { total, events } => events_table(*total, events, now),
        Reply::Users { users } => users_table(users),
        Reply::ApiKeys { api_keys } => keys_table(api_keys),
        Reply::Password { message, password } => {
            format!("{message}. The password, which is not shown again:\n{}\n", password.0)
        }
        Reply::ApiKey { message, id, token } => {
            format!("{message}. Its id is {id}; the key itself is not shown again:\n{token}\n")
        }
        Reply::Done { message } | Reply::Error { message, .. } => format!("{message}\n"),
    }
}

fn join_token(request: &Request, token: &str, expires_at: UnixMicros, note: &str) -> String {
    let (role, uses) = match request {
        Request::JoinToken { role: Role::Balancer, uses, .. } => ("balancer", *uses),
        Request::JoinToken { uses, .. } => ("worker", *uses),
        _ => ("worker", 1),
    };
    // All workers of a cluster share one store.
    let store = if role == "worker" { " --store URL" } else { "" };
    let who = if uses == 1 { format!("One {role} may join") } else { format!("{uses} {role}s may join") };
    let note = if note.is_empty() { String::new() } else { format!("{note}\n") };
    let until = rfc3339(expires_at);
    format!("{who} with this token until {until}, by `limpet {role} --join TOKEN{store}`:\n{note}{token}\n")
}

fn tokens_table(tokens: &[TokenInfo], now: UnixMicros) -> String {
    if tokens.is_empty() {
        return "There is no join token. Make one with `limpet ctl join-token`.\n".into();
    }
    let rows = tokens.iter().map(|token| {
        let used = token.used();
        let state = match token {
            _ if token.revoked => "revoked",
            _ if token.expires_at <= now => "expired",
            _ if used >= token.uses => "used up",
            _ => "good",
        };
        vec![
            token.id.clone(),
            token.role.as_str().to_owned(),
            state.to_owned(),
            format!("{used} of {}", token.uses),
            rfc3339(token.created_at),
            rfc3339(token.expires_at),
        ]
    });
    table(&["ID", "FOR", "STATE", "USED", "MADE", "GOOD UNTIL"], rows.collect())
}

fn servers_table(servers: &[Server], now: UnixMicros) -> String {
    let rows = servers.iter().map(|server| {
        let Server { name, role, state, address, http, version, started_at, weight, share, in_flight, reason, .. } =
            server;
        let gone = state == "gone";
        let size = |bytes: u64| if gone { String::new() } else { bytes_text(bytes) };
        let balances = role == "balancer";
        let of_worker = |text: String| if balances { String::new() } else { text };
        vec![
            name.clone(),
            role.clone(),
            state.clone(),
            of_worker(weight.to_string()),
            of_worker(percent(*share)),
            of_worker(in_flight.to_string()),
            if gone || server.memory == 0 { String::new() } else { percent(server.cpu) },
            size(server.memory),
            size(server.disk_free),
            if gone { String::new() } else { ago(Some(*started_at).filter(|at| at.0 > 0), now) },
            address.clone(),
            http.clone(),
            version.clone(),
            reason.clone(),
        ]
    });
    let heads = [
        "NAME",
        "ROLE",
        "STATE",
        "WEIGHT",
        "SHARE",
        "IN FLIGHT",
        "CPU",
        "MEMORY",
        "DISK FREE",
        "UP",
        "ADDRESS",
        "HTTP",
        "VERSION",
        "WHY",
    ];
    let mut out = table(&heads, rows.collect());
    if !servers.iter().any(Server::answers) {
        out.push_str("No balancer answers: no uplink is acknowledged until one does.\n");
    } else if !servers.iter().any(Server::takes_frames) {
        out.push_str("No worker takes frames: no uplink is acknowledged until one is ready.\n");
    }
    out
}

fn ring_text(request: &Request, ring: &RingReport) -> String {
    let mut out = String::new();
    if let Request::Ring { eui: Some(eui) } = request {
        // Writing to a String cannot fail.
        let _ = match &ring.worker {
            Some(worker) => writeln!(out, "Gateway {eui} has worker {worker}."),
            None => writeln!(out, "Gateway {eui} has no worker."),
        };
        if let Some(why) = &ring.why {
            let _ = writeln!(out, "{why}");
        }
        if !ring.next.is_empty() {
            let _ = writeln!(out, "Next in line: {}.", ring.next.join(", "));
        }
        out.push('\n');
    }
    let rows =
        ring.workers.iter().map(|worker| vec![worker.name.clone(), worker.weight.to_string(), percent(worker.share)]);
    out.push_str(&table(&["WORKER", "WEIGHT", "SHARE"], rows.collect()));
    let _ = writeln!(out, "Epoch {}", ring.epoch);
    out
}

fn gateways_text(request: &Request, gateways: &[Gateway], (more, note): (u32, &str), now: UnixMicros) -> String {
    let unknown = matches!(request, Request::GatewaysHeard { unknown: true, .. });
    if gateways.is_empty() {
        let none = match request {
            _ if unknown => "No unknown gateway was heard.",
            Request::Gateways { search, .. } if !search.is_empty() => {
                "No gateway has a name or an EUI with that in it."
            }
            Request::Gateways { offset: 1.., .. } => "There are no more gateways.",
            _ => "There is no gateway yet. Add one with `limpet ctl gateway add EUI`.",
        };
        return format!("{none}\n");
    }
    let rows = gateways.iter().map(|gateway| {
        let Gateway { eui, name, address, last_seen, worker, policy, .. } = gateway;
        let policy = policy.as_deref().map_or_else(String::new, super::address::shown);
        let seen = last_seen.map_or_else(|| "never".into(), |at| format!("{} ago", ago(Some(at), now)));
        let (address, worker) = (address.clone().unwrap_or_default(), worker.clone().unwrap_or_default());
        let state = gateway.online.map_or("", |online| if online { "online" } else { "offline" });
        vec![eui.to_string(), name.clone(), state.into(), seen, address, policy, worker]
    });
    let mut out = table(&["EUI", "NAME", "STATE", "LAST SEEN", "ADDRESS", "POLICY", "WORKER"], rows.collect());
    if let Request::Gateways { offset, .. } = request {
        go_on(&mut out, *offset, gateways.len(), |shown| shown.saturating_add(more));
    }
    if !note.is_empty() {
        let _ = writeln!(out, "{note}.");
    }
    if unknown && let Some(first) = gateways.first() {
        let _ = writeln!(out, "Add one with `limpet ctl gateway add {}`.", first.eui);
    }
    out
}

fn devices_table(request: &Request, total: u32, devices: &[Device], now: UnixMicros) -> String {
    let searched = matches!(request, Request::Devices { search, .. } if !search.is_empty());
    let Request::Devices { offset, .. } = request else { return String::new() };
    if devices.is_empty() {
        let none = match (searched, total) {
            (true, _) => "No device has a name or a DevEUI with that in it.",
            (false, 0) => "There is no device yet. Add one with `limpet ctl device add`.",
            (false, _) => "There are no more devices.",
        };
        return format!("{none}\n");
    }
    let rows = devices.iter().map(|device| {
        let seen = device.last_seen.map_or_else(|| "never".into(), |at| format!("{} ago", ago(Some(at), now)));
        let state = device_state(device);
        let Device { name, application, profile, .. } = device;
        vec![device.dev_eui.to_string(), name.clone(), seen, state.into(), application.clone(), profile.clone()]
    });
    let mut out = table(&["DEVEUI", "NAME", "LAST SEEN", "STATE", "APPLICATION", "PROFILE"], rows.collect());
    go_on(&mut out, *offset, devices.len(), |_| total);
    out
}

/// How to see what is behind the last entry. `total`: of how many that are shown now or before.
fn go_on(out: &mut String, offset: u32, count: usize, total: impl Fn(u32) -> u32) {
    let shown = offset.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    let total = total(shown);
    if shown < total {
        let _ = writeln!(out, "{shown} of {total}; the next ones with --offset {shown}.");
    }
}

fn device_state(device: &Device) -> &'static str {
    match device.active {
        _ if device.is_disabled => "disabled",
        Some(true) => "active",
        Some(false) => "inactive",
        None => "",
    }
}

fn device_text(detail: &DeviceDetail, now: UnixMicros) -> String {
    let DeviceDetail { device, description, join_eui, has_app_key, session, queued, queue } = detail;
    let seen = device.last_seen.map_or_else(|| "never".into(), |at| format!("{} ago", ago(Some(at), now)));
    let state = device_state(device);
    let app_key = if *has_app_key { "set" } else { "none: it cannot join" };
    let session = session.as_ref().map_or_else(
        || "none yet".into(),
        |session| {
            let by = if session.joined { "joined" } else { "activated by ABP" };
            let since = format!("{by} {} ago in {}", ago(Some(session.since), now), session.region);
            format!("{}, {since}; next FCntUp {}, FCntDown {}", session.dev_addr, session.fcnt_up, session.fcnt_down)
        },
    );
    let windows = detail.session.as_ref().map(regions::windows).unwrap_or_default();
    let lines = [
        ("DEVEUI", device.dev_eui.to_string()),
        ("NAME", device.name.clone()),
        ("DESCRIPTION", description.clone()),
        ("APPLICATION", device.application.clone()),
        ("PROFILE", device.profile.clone()),
        ("STATE", state.into()),
        ("LAST SEEN", seen),
        ("JOINEUI", join_eui.to_string()),
        ("APPKEY", app_key.into()),
        ("SESSION", session),
        ("WINDOWS", windows),
        ("QUEUE", format!("{queued} waiting")),
    ];
    let lines = lines.into_iter().filter(|(_, value)| !value.is_empty());
    let mut out = table(&["DEVICE", ""], lines.map(|(name, value)| vec![name.into(), value]).collect());
    let rows = queue.iter().map(|item| {
        let state = if item.is_pending { "at a gateway" } else { "waits" };
        let confirmed = if item.confirmed { "confirmed" } else { "unconfirmed" };
        let size = format!("{} B", item.bytes);
        let made = format!("{} ago", ago(Some(item.created_at), now));
        vec![item.id.clone(), item.fport.to_string(), size, confirmed.into(), state.into(), made]
    });
    if !queue.is_empty() {
        out.push('\n');
        out.push_str(&table(&["ITEM", "PORT", "SIZE", "KIND", "STATE", "ENQUEUED"], rows.collect()));
    }
    out
}

fn integrations_table(integrations: &[Integration], now: UnixMicros) -> String {
    if integrations.is_empty() {
        return "No application has an integration yet. `limpet ctl device add --webhook URL` gives one.\n".into();
    }
    let rows = integrations.iter().map(|one| {
        let Integration { id, application, tenant, kind, endpoint, number, state, waiting, oldest, trouble, .. } = one;
        let waiting = if *waiting == 0 { String::new() } else { waiting.to_string() };
        let (since, why) = trouble.as_ref().map_or_else(Default::default, |trouble| {
            (ago(Some(trouble.since), now), format!("{}: {}", trouble.reason, trouble.error))
        });
        let endpoint = match (kind.is_empty(), number) {
            (true, _) => "(removed)".into(),
            (false, 0) => endpoint.clone(),
            (false, number) => format!("{endpoint} (URL {number})"),
        };
        let named = [application.clone(), tenant.clone(), kind.clone(), endpoint, state.clone()];
        named.into_iter().chain([waiting, ago(*oldest, now), since, why, id.clone()]).collect()
    });
    let heads = ["APPLICATION", "TENANT", "KIND", "ENDPOINT", "STATE", "WAITING", "OLDEST", "FAILING FOR", "WHY", "ID"];
    table(&heads, rows.collect())
}

fn events_table(total: u64, events: &[WaitingEvent], now: UnixMicros) -> String {
    if events.is_empty() {
        return "Nothing waits for this integration.\n".into();
    }
    let rows = events.iter().map(|one| {
        let WaitingEvent { id, event, dev_eui, device, at } = one;
        let at = format!("{} ago", ago(Some(*at), now));
        vec![event.clone(), dev_eui.to_string(), device.clone(), at, id.clone()]
    });
    let mut out = table(&["EVENT", "DEVEUI", "DEVICE", "HAPPENED", "ID"], rows.collect());
    let more = total.saturating_sub(events.len() as u64);
    if more > 0 {
        let _ = writeln!(out, "And {more} more.");
    }
    out
}

fn users_table(users: &[User]) -> String {
    let rows = users.iter().map(|user| {
        let may = if user.is_admin { "administrator" } else { "user" };
        let state = if user.is_active { "active" } else { "disabled" };
        vec![user.email.clone(), may.into(), state.into(), rfc3339(user.created_at)]
    });
    table(&["USER", "ROLE", "STATE", "MADE"], rows.collect())
}

fn keys_table(keys: &[ApiKey]) -> String {
    if keys.is_empty() {
        return "There is no API key. Make one with `limpet ctl api-key create NAME`.\n".into();
    }
    let rows = keys.iter().map(|key| {
        let may = if key.read_only { "read" } else { "everything" };
        let of = key.tenant.as_ref().map_or_else(|| "the network".into(), |tenant| format!("tenant {tenant}"));
        vec![key.id.clone(), key.name.clone(), of, may.into(), rfc3339(key.created_at)]
    });
    table(&["ID", "NAME", "OF", "MAY", "MADE"], rows.collect())
}

/// In the largest unit of which there is one; nothing for nothing, which means that nobody knows.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None if bytes == 0 => String::new(),
        None => format!("{bytes} B"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// How long ago, in the largest unit that fits.
fn ago(at: Option<UnixMicros>, now: UnixMicros) -> String {
    let Some(at) = at else { return String::new() };
    let seconds = now.since(at).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Columns as wide as they need to be; a column without any content is left out.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    // Names and reasons come from other machines: no control character of theirs may reach a terminal.
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let shown: Vec<(usize, usize)> = (0..heads.len())
        .map(|column| (column, width(column).unwrap_or(0)))
        .filter(|&(column, width)| column == 0 || width > 0)
        .map(|(column, width)| (column, width.max(heads[column].chars().count())))
        .collect();
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for &(column, width) in &shown {
            let cell = row.get(column).map_or("", String::as_str);
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use limpet_shared::{Eui64, admin::RingWorker};

    use super::*;

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    #[test]
    fn the_token_stands_alone_on_the_last_line() {
        let asked = Request::JoinToken { role: Role::Worker, expires_in_secs: 60, uses: 1 };
        let made = Reply::JoinToken { token: "limpet1.a.b".into(), expires_at: NOW, note: "Mind the store.".into() };
        let text = reply(&asked, &made, NOW);
        assert_eq!(text.lines().last(), Some("limpet1.a.b"));
        assert!(text.contains("One worker may join") && text.contains("2023-11-14T22:13:20Z"));
        assert!(text.contains("\nMind the store.\n"));
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let server = |name: &str, role: &str| Server {
            name: name.into(),
            role: role.into(),
            state: "ready".into(),
            weight: 100,
            share: 0.5,
            started_at: UnixMicros(NOW.0 - 3_600_000_000),
            ..Server::default()
        };
        let servers = vec![server("a", "worker"), server("a-longer-name", "worker"), server("edge", "balancer")];
        let text = reply(&Request::Servers, &Reply::Servers { servers }, NOW);
        assert_eq!(
            text,
            "NAME           ROLE      STATE  WEIGHT  SHARE   IN FLIGHT  UP\n\
             a              worker    ready  100     50.0 %  0          60 min\n\
             a-longer-name  worker    ready  100     50.0 %  0          60 min\n\
             edge           balancer  ready                             60 min\n"
        );
    }

    #[test]
    fn tokens_are_listed_with_what_is_left_of_them() {
        let token = |id: &str, uses, used: u32| TokenInfo {
            id: id.into(),
            created_at: NOW,
            expires_at: UnixMicros(NOW.0 + 1),
            uses,
            used: [("east".to_owned(), used)].into(),
            ..TokenInfo::default()
        };
        let tokens = vec![
            token("a", 3, 1),
            token("b", 3, 3),
            TokenInfo { revoked: true, ..token("c", 3, 1) },
            TokenInfo { expires_at: NOW, ..token("d", 3, 1) },
        ];
        let text = reply(&Request::Tokens, &Reply::Tokens { tokens }, NOW);
        let states = ["good     1 of 3", "used up  3 of 3", "revoked  1 of 3", "expired  1 of 3"];
        assert!(states.iter().zip(text.lines().skip(1)).all(|(state, line)| line.contains(state)), "{text}");
    }

    #[test]
    fn sizes_are_told_in_a_unit_that_fits() {
        assert_eq!(
            ["", "1023 B", "1.5 KiB", "3.0 GiB"],
            [0, 1023, 1536, 3 << 30].map(bytes_text).each_ref().map(|s| &s[..])
        );
    }

    #[test]
    fn the_ring_says_who_has_a_gateway_and_why() {
        let ring = RingReport {
            epoch: 7,
            workers: vec![RingWorker { name: "w1".into(), weight: 100, share: 1.0 }],
            worker: Some("w1".into()),
            why: Some("It is next on the ring.".into()),
            next: vec!["w2".into(), "w3".into()],
        };
        let text = reply(&Request::Ring { eui: Some(Eui64(1)) }, &Reply::Ring(ring), NOW);
        assert!(
            text.starts_with(
                "Gateway 0000000000000001 has worker w1.\nIt is next on the ring.\nNext in line: w2, w3.\n"
            )
        );
        assert!(text.ends_with("w1      100     100.0 %\nEpoch 7\n"));
    }

    #[test]
    fn unknown_gateways_come_with_the_command_that_adds_one() {
        let asked = Request::heard(true);
        let gateway = Gateway {
            eui: Eui64(0xab),
            address: Some("10.0.0.9:4000".into()),
            last_seen: Some(UnixMicros(NOW.0 - 5_000_000)),
            ..Gateway::default()
        };
        let text = reply(&asked, &Reply::gateways(vec![gateway]), NOW);
        assert!(text.contains("5 s ago"));
        assert!(text.ends_with("Add one with `limpet ctl gateway add 00000000000000ab`.\n"));
        assert!(reply(&asked, &Reply::gateways(vec![]), NOW).contains("No unknown gateway"));
    }

    #[test]
    fn gateways_are_listed_with_the_policy_that_somebody_gave_them() {
        let gateway = |eui, policy: Option<&str>| Gateway {
            eui: Eui64(eui),
            known: true,
            policy: policy.map(str::to_owned),
            ..Gateway::default()
        };
        let gateways = vec![gateway(1, Some("hold:600")), gateway(2, None)];
        let text = reply(&Request::gateways(), &Reply::Gateways { gateways, more: 3, note: "so it is".into() }, NOW);
        assert_eq!(text.lines().next(), Some("EUI               LAST SEEN  POLICY"));
        assert_eq!(text.lines().nth(1), Some("0000000000000001  never      hold=10m"));
        assert!(text.lines().last().is_some_and(|last| last == "so it is."), "{text}");
        assert!(text.contains("\n2 of 5; the next ones with --offset 2.\n"), "{text}");
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        let gateway = Gateway { name: "x\u{1b}[2J\n".into(), ..Gateway::default() };
        let text = reply(&Request::gateways(), &Reply::gateways(vec![gateway]), NOW);
        assert!(!text.contains('\u{1b}') && text.contains("x?[2J?"));
    }

    #[test]
    fn an_integration_that_fails_says_why_and_since_when() {
        use limpet_shared::admin::IntegrationTrouble;
        let trouble = IntegrationTrouble {
            reason: "dns".into(),
            error: "http://a cannot be reached".into(),
            since: UnixMicros(NOW.0 - 240_000_000),
            ..IntegrationTrouble::default()
        };
        let failing = Integration {
            id: "1".into(),
            application: "meters".into(),
            kind: "http".into(),
            endpoint: "http://a".into(),
            number: 2,
            state: "failing".into(),
            waiting: 20,
            oldest: Some(UnixMicros(NOW.0 - 60_000_000)),
            trouble: Some(trouble),
            ..Integration::default()
        };
        let text = reply(
            &Request::Integrations { offset: 0 },
            &Reply::Integrations { integrations: vec![failing], next: None },
            NOW,
        );
        assert_eq!(
            text,
            "APPLICATION  KIND  ENDPOINT          STATE    WAITING  OLDEST  FAILING FOR  WHY                              ID\n\
             meters       http  http://a (URL 2)  failing  20       60 s    4 min        dns: http://a cannot be reached  1\n"
        );
    }
}
