use clap::{CommandFactory, FromArgMatches, Parser};
use limpet_link::Authority;
use limpet_shared::{UnixMicros, admin::Role};

use super::*;
use crate::cli::{Cli, Command, CtlTask};

fn parse(line: &[&str]) -> Flags {
    let matches = Cli::command().try_get_matches_from([&["limpet"], line].concat()).unwrap();
    Cli::from_arg_matches(&matches).unwrap();
    flags(matches.subcommand().unwrap().1)
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A data folder with a `limpet.toml`, and the flag that leads to it.
fn folder(toml: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("limpet.toml"), toml).unwrap();
    let data = folder.path().display().to_string();
    (folder, data)
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let (_folder, data) =
        folder("gwmp = '1.1.1.1:1'\nlink = '1.1.1.1:2'\nhttp = '1.1.1.1:3'\nregion = ['us915_1', 'eu868']\n");
    let flags = parse(&[
        "up",
        "--data",
        &data,
        "--gwmp",
        "3.3.3.3:1",
        "--demo",
        "--trusted-proxy",
        "10.0.0.1",
        "--trusted-proxy",
        "::1/128",
    ]);
    let variables = environment(&[("LIMPET_GWMP", "2.2.2.2:1"), ("LIMPET_LINK", "2.2.2.2:2"), ("LIMPET_HTTP", "")]);
    let (up, warnings) = Up::load(flags, variables).unwrap();
    assert_eq!(up.edge.gwmp, "3.3.3.3:1".parse().unwrap());
    assert_eq!(up.edge.link, "2.2.2.2:2".parse().unwrap());
    assert_eq!(up.processing.http, "1.1.1.1:3".parse().unwrap());
    assert_eq!(up.processing.regions, ["us915_1", "eu868"]);
    assert_eq!(up.edge.admin, "127.0.0.1:1702".parse().unwrap());
    assert_eq!(up.processing.store, format!("sqlite:{data}/store"));
    assert_eq!((up.workers, up.demo), (1, true));
    assert!(
        up.common.trusted_proxies.trusts([10, 0, 0, 1].into())
            && !up.common.trusted_proxies.trusts([127, 0, 0, 1].into())
    );
    assert_eq!(up.processing.weight, 100);
    assert!(warnings.is_empty());
}

#[test]
fn all_mistakes_are_told_together_each_with_its_place_and_what_is_allowed() {
    let (_folder, data) =
        folder("workers = 2\n\ngwpm = '0.0.0.0:1700'\nack = 'soon'\nregion = { name = 'eu868' }\ndata = 'x'\n");
    let flags = parse(&["up", "--data", &data, "--http", "8080", "--region", "eu868,mars", "--workers", "0"]);
    let variables = environment(&[
        ("LIMPET_LOG_LEVEL", "loud"),
        ("LIMPET_STORE", "mysql://u:p@h"),
        ("LIMPET_TRUSTED_PROXY", "127.0.0.1,10.0.0.1/8"),
    ]);
    let text = Up::load(flags, variables).unwrap_err().to_string();
    for expected in [
        "10 mistakes in the configuration:",
        "limpet.toml, line 3, gwpm: there is no such setting; did you mean gwmp?",
        "limpet.toml, line 4, ack: \"soon\" is not allowed: it is neither; allowed: stored or received",
        "limpet.toml, line 5, region: a table is not allowed; allowed: eu868, eu433, ru864, cn779, as923, \
         as923_2 to as923_4, in865, kr920, ism2400, us915, us915_0 to us915_7, au915, au915_0 to au915_7, cn470, cn470_0 to cn470_11, several",
        "limpet.toml, line 6, data: this cannot be set in a file that is found in the data folder",
        "--http: \"8080\" is not allowed: it has no port; allowed: IP:PORT",
        "--region: \"eu868,mars\" is not allowed: \"mars\": there is no such region; allowed: eu868",
        "--workers: \"0\" is not allowed: it is less than 1; allowed: a number from 1 to 64",
        "LIMPET_STORE: is not allowed: it is no store; allowed: sqlite:DIR, or cql://",
        "LIMPET_TRUSTED_PROXY: \"127.0.0.1,10.0.0.1/8\" is not allowed: \"10.0.0.1/8\": it has bits set beyond its prefix \
         length; allowed: IP or IP/BITS",
        "LIMPET_LOG_LEVEL: \"loud\" is not allowed: \"loud\" is no level; allowed: error, warn",
    ] {
        // `region` in the file does not count, as the flag wins, but it is a mistake all the same.
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    assert_eq!(text.lines().count(), 11, "{text}");
}

#[test]
fn no_message_shows_a_secret() {
    let flags = parse(&[
        "worker",
        "--join",
        "limpet1.secret",
        "--admin-password",
        "hunter2hunter2",
        "--admin-password-file",
        "/f",
    ]);
    let text = Worker::load(flags, Vec::new()).unwrap_err().to_string();
    assert!(text.contains("--join: is not allowed: the join token is malformed"), "{text}");
    assert!(text.contains("--admin-password and --admin-password-file are both given"), "{text}");
    assert!(!text.contains("secret") && !text.contains("hunter2hunter2"), "{text}");
    let (worker, _) = Worker::load(parse(&["worker", "--admin-password", "hunter2hunter2"]), Vec::new()).unwrap();
    assert!(!format!("{worker:?}").contains("hunter2hunter2"));
}

#[test]
fn the_password_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pw");
    std::fs::write(&file, "hunter2hunter2\nmore\n").unwrap();
    let load = |file: &str| Up::load(parse(&["up", "--data", "/nowhere", "--admin-password-file", file]), Vec::new());
    let (up, _) = load(&file.display().to_string()).unwrap();
    assert_eq!(up.common.admin_password, Some(Secret("hunter2hunter2".into())));
    std::fs::write(&file, "\n").unwrap();
    assert!(load(&file.display().to_string()).unwrap_err().to_string().contains("its first line is empty"));
    std::fs::write(&file, "short\n").unwrap();
    assert!(
        load(&file.display().to_string()).unwrap_err().to_string().contains("in the file: it has only 5 characters")
    );
    assert!(load("/nowhere/pw").unwrap_err().to_string().contains("it cannot be read"));
}

/// A file with a secret, readable by its owner or by all.
fn secret(folder: &Path, name: &str, text: &str, mode: u32) -> String {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file.display().to_string()
}

#[test]
fn every_secret_may_stand_in_a_file_which_only_its_owner_should_read() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(&folder.path().join("cluster")).unwrap();
    let token = authority.token(Role::Worker, UnixMicros(u64::MAX / 2), 1, vec!["10.0.0.1:1701".into()]).unwrap();
    let printed = format!("One worker may join with this token:\n{}\n", token.as_str());
    let join = secret(folder.path(), "join", &printed, 0o600);
    let url = "cql://limpet:hunter2@db/limpet?replication=dc1:3";
    let store = secret(folder.path(), "store", &format!("{url}\n"), 0o600);
    let data = folder.path().display().to_string();
    let load = |variables| Worker::load(parse(&["worker", "--data", "/nowhere", "--join-file", &join]), variables);
    let (worker, warnings) = load(environment(&[("LIMPET_STORE_FILE", &store)])).unwrap();
    assert_eq!((worker.join.unwrap().as_str(), &*worker.processing.store), (token.as_str(), url));
    assert!(warnings.is_empty(), "{warnings:?}");

    let open = secret(folder.path(), "open", &format!("{url}\n"), 0o644);
    let (_, warnings) = load(environment(&[("LIMPET_STORE_FILE", &open)])).unwrap();
    assert!(matches!(&warnings[..], [one] if one.contains(&open) && one.contains("0644")), "{warnings:?}");
    let both = load(environment(&[("LIMPET_STORE_FILE", &store), ("LIMPET_STORE", "sqlite:x")])).unwrap_err();
    assert_eq!(both.to_string(), "LIMPET_STORE and LIMPET_STORE_FILE are both given; allowed: one of them");
    let both = load(environment(&[("LIMPET_JOIN", token.as_str())])).unwrap_err().to_string();
    assert_eq!(both, "LIMPET_JOIN and --join-file are both given; allowed: one of them");
    let gone = || Worker::load(parse(&["worker", "--data", &data, "--join-file", "/nowhere/join"]), Vec::new());
    assert!(
        gone().unwrap_err().to_string().contains("--join-file: \"/nowhere/join\" is not allowed: it cannot be read")
    );
    std::fs::create_dir(folder.path().join("identity")).unwrap();
    assert!(gone().is_ok(), "who has joined needs no token");
    assert!(is_gone("/nowhere/join") && !is_gone("-"), "standard input is always there");
    let no_token = secret(folder.path(), "none", "hunter2\n", 0o600);
    let wrong = Worker::load(parse(&["worker", "--join-file", &no_token]), Vec::new()).unwrap_err().to_string();
    assert!(wrong.contains("in the file: the join token is malformed") && !wrong.contains("hunter2"), "{wrong}");
}

#[test]
fn a_configuration_with_a_secret_in_it_should_be_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    for (text, mode, warned) in [
        ("admin-password = 'hunter2hunter2'\n", 0o644, true),
        ("admin-password = 'hunter2hunter2'\n", 0o600, false),
        ("store = 'cql://a:b@c/d?replication=dc1:3'\n", 0o640, true),
        ("store = 'sqlite:x'\ngwmp = '0.0.0.0:1700'\n", 0o644, false),
    ] {
        secret(folder.path(), "limpet.toml", text, mode);
        let (_, warnings) = Worker::load(parse(&["worker", "--data", &data]), Vec::new()).unwrap();
        assert_eq!(warnings.len(), usize::from(warned), "{text}: {warnings:?}");
    }
}

#[test]
fn threads_are_half_the_processors_unless_said_otherwise() {
    let load = |more: &[&str]| Balancer::load(parse(&[&["balancer", "--data", "/nowhere"], more].concat()), Vec::new());
    let all = std::thread::available_parallelism().unwrap().get();
    assert_eq!(load(&[]).unwrap().0.common.threads, (all / 2).max(1));
    assert_eq!(load(&["--threads", "3"]).unwrap().0.common.threads, 3);
    let none = load(&["--threads", "0"]).unwrap_err().to_string();
    assert!(none.contains("--threads") && none.contains("less than 1"), "{none}");
}

#[test]
fn a_file_that_is_named_must_exist_and_may_name_the_data_folder() {
    let (folder, _) = folder("data = '/var/lib/limpet'\nlog_format = 'json'\n");
    let file = folder.path().join("limpet.toml").display().to_string();
    let (balancer, _) = Balancer::load(parse(&["balancer"]), environment(&[("LIMPET_CONFIG", &file)])).unwrap();
    assert_eq!(balancer.common.data, PathBuf::from("/var/lib/limpet"));
    assert!(balancer.common.log_json, "a key may be written with _");
    let missing = Balancer::load(parse(&["balancer", "--config", "/nowhere/x.toml"]), Vec::new()).unwrap_err();
    assert!(missing.to_string().contains("cannot read the configuration file /nowhere/x.toml"));
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_line() {
    let (_folder, data) = folder("gwmp = '0.0.0.0:1700'\nlink = \n");
    let text = Balancer::load(parse(&["balancer", "--data", &data]), Vec::new()).unwrap_err().to_string();
    assert!(text.contains("limpet.toml, line 2: "), "{text}");
}

#[test]
fn a_file_may_serve_all_roles_and_foreign_variables_do_no_harm() {
    let (_folder, data) = folder("workers = 3\nbalancer = 'edge:1701'\nname = 'x'\n");
    let variables = environment(&[("LIMPET_PORT_1700_UDP", "udp://1"), ("LIMPET_HTP", "1"), ("PATH", "/")]);
    let (balancer, warnings) = Balancer::load(parse(&["balancer", "--data", &data]), variables).unwrap();
    assert_eq!((balancer.common.name.as_str(), balancer.common.name_chosen), ("x", true));
    assert_eq!(warnings, ["the variable LIMPET_HTP is no setting; did you mean LIMPET_HTTP?"]);
}

#[test]
fn a_worker_has_a_weight() {
    let load = |text| Worker::load(parse(&["worker"]), environment(&[("LIMPET_WEIGHT", text)]));
    assert_eq!(load("40").unwrap().0.processing.weight, 40);
    let refused = load("0").unwrap_err().to_string();
    assert!(refused.contains("it is less than 1; allowed: a number from 1 to 100"), "{refused}");
}

#[test]
fn one_port_cannot_be_two() {
    let flags = parse(&["balancer", "--gwmp", "0.0.0.0:1701"]);
    assert!(Balancer::load(flags, Vec::new()).unwrap_err().to_string().contains("gwmp and link are both 0.0.0.0:1701"));
}

/// Flags of a subcommand, without clap's own.
fn flags_of(path: &[&str]) -> Vec<String> {
    let mut command = Cli::command();
    command.build();
    let command = path.iter().fold(&command, |command, name| command.find_subcommand(name).unwrap());
    let flags = command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned));
    flags.filter(|flag| flag != "help" && flag != "version").collect()
}

#[test]
fn every_flag_of_a_role_is_a_setting_and_the_other_way_round() {
    let mut flags: Vec<String> = ["up", "balancer", "worker"].iter().flat_map(|role| flags_of(&[role])).collect();
    flags.sort();
    flags.dedup();
    let mut keys: Vec<&str> = settings::SETTINGS.iter().map(|setting| setting.key).collect();
    keys.sort();
    assert_eq!(flags, keys);
}

#[test]
fn every_flag_is_documented() {
    let text = include_str!("../../docs/configuration.md");
    let commands: [&[&str]; 14] = [
        &["up"],
        &["balancer"],
        &["worker"],
        &["simulate"],
        &["ctl"],
        &["ctl", "join-token"],
        &["ctl", "gateway", "add"],
        &["ctl", "device", "add"],
        &["ctl", "migrate"],
        &["ctl", "rotate-token-key"],
        &["ctl", "export"],
        &["ctl", "import"],
        &["ctl", "user", "add"],
        &["ctl", "api-key", "create"],
    ];
    for path in commands {
        for flag in flags_of(path) {
            assert!(text.contains(&format!("`--{flag}`")), "docs/configuration.md lacks --{flag} of {path:?}");
        }
    }
    for setting in settings::SETTINGS {
        let variable = settings::variable(setting.key);
        assert!(text.contains(&format!("`{variable}`")), "docs/configuration.md lacks {variable}");
    }
}

#[test]
fn help_names_defaults_and_commands() {
    let mut command = Cli::command();
    let help = command.render_help().to_string();
    for name in ["up", "balancer", "worker", "ctl", "simulate"] {
        assert!(help.contains(name));
    }
    let up = command.find_subcommand_mut("up").unwrap().render_help().to_string();
    for expected in ["[default: 0.0.0.0:1700]", "LIMPET_<FLAG>", "--accept-unknown-gateways"] {
        assert!(up.contains(expected), "{expected} is not in\n{up}");
    }
    Cli::command().debug_assert();
}

#[test]
fn the_operators_commands_are_as_documented() {
    let good: [&[&str]; 15] = [
        &["ctl", "join-token", "--role", "balancer", "--expires", "7d", "--uses", "3"],
        &["ctl", "--data", "/x", "servers", "--json"],
        &["ctl", "ring"],
        &["ctl", "ring", "0016c001ff10a235"],
        &["ctl", "drain", "w1", "--off"],
        &["ctl", "gateways", "--unknown"],
        &["ctl", "gateway", "add", "00:16:C0:01:FF:10:A2:35", "--name", "roof", "--tenant", "Limpet"],
        &["ctl", "device", "add", "--dev-eui", "0000000000000001", "--app-key", "00112233445566778899aabbccddeeff"],
        &["ctl", "--server", "http://h:1", "--token", "k", "servers"],
        &["ctl", "servers", "--server", "http://h:1", "--token", "k"],
        &["ctl", "servers", "--server", "http://h:1", "--token-file", "/f"],
        &["ctl", "migrate", "--store-file", "/f"],
        &[
            "ctl",
            "device",
            "add",
            "--dev-eui",
            "1122334455667788",
            "--dev-addr",
            "01020304",
            "--nwk-s-key-file",
            "/n",
            "--app-s-key-file",
            "/a",
        ],
        &["simulate", "--server", "127.0.0.1:1700"],
        &["simulate", "--server", "127.0.0.1:1700", "--api", "http://127.0.0.1:8080", "--password", "x"],
    ];
    for line in good {
        Cli::try_parse_from([&["limpet"], line].concat()).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    }
    let bad: [&[&str]; 10] = [
        &["ctl", "join-token", "--uses", "0"],
        &["ctl", "join-token", "--expires", "soon"],
        &["ctl", "ring", "xyz"],
        &["ctl", "device", "add", "--dev-eui", "0000000000000001"],
        &["ctl", "device", "add", "--dev-eui", "0000000000000001", "--dev-addr", "01020304"],
        &["ctl", "--server", "http://h:1", "--token", "k", "--token-file", "/f", "servers"],
        &["ctl", "migrate", "--store", "sqlite:x", "--store-file", "/f"],
        &["ctl", "device", "add", "--dev-eui", "0000000000000001", "--dev-addr", "01020304", "--app-key-file", "/f"],
        &["ctl"],
        &["simulate"],
    ];
    for line in bad {
        assert!(Cli::try_parse_from([&["limpet"], line].concat()).is_err(), "{line:?}");
    }
    // A store may be named before the command too, so that there is none is only known when both have been read.
    let Command::Ctl(args) = Cli::try_parse_from(["limpet", "ctl", "migrate"]).unwrap().command else { unreachable!() };
    let CtlTask::Migrate { store, .. } = args.command else { unreachable!() };
    assert!(store.url(args.store).unwrap_err().contains("--store URL"));
}

#[test]
fn machines_can_have_one_list_of_balancers() {
    let (_folder, data) = folder("balancer = ['10.0.0.1:1701', '10.0.0.2:1701', 'c.test:1701']\n");
    let line = ["up", "--data", &data, "--advertise", "10.0.0.2:1701"];
    let (up, _) = Up::load(parse(&line), Environment::new()).unwrap();
    assert_eq!(up.balancers, ["10.0.0.1:1701", "c.test:1701"]);
}

#[test]
fn an_up_that_joins_must_know_whom_else_to_dial_and_which_store_they_share() {
    let (_folder, data) = folder("");
    let token = Authority::open(&std::path::Path::new(&data).join("cluster")).unwrap();
    let token = token.token(Role::Balancer, UnixMicros(u64::MAX / 2), 1, vec!["10.0.0.1:1701".into()]).unwrap();
    let line = ["up", "--data", &data, "--join", token.as_str()];
    let text = Up::load(parse(&line), Environment::new()).unwrap_err().to_string();
    assert!(text.contains("join is given without balancer") && text.contains("join is given without store"), "{text}");
    let line = [&line[..], &["--balancer", "10.0.0.1:1701"]].concat();
    let store = vec![("LIMPET_STORE".to_owned(), "sqlite:shared".to_owned())];
    let (up, _) = Up::load(parse(&line), store).unwrap();
    assert_eq!((up.balancers, up.processing.store), (vec!["10.0.0.1:1701".to_owned()], "sqlite:shared".to_owned()));
    let alone = ["up", "--data", &data];
    assert!(Up::load(parse(&alone), Environment::new()).is_ok(), "a newcomer needs neither");
}
