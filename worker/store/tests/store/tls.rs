//! TLS to a real engine: `make test-cql-tls`.

#[cfg(not(feature = "cql-tls"))]
#[test]
#[ignore = "needs --features cql-tls, and cmake to build it: make test-cql-tls"]
fn cql_talks_tls_and_says_what_is_wrong_with_it() {}

#[cfg(feature = "cql-tls")]
mod with_the_feature {
    use std::{
        fs,
        io::{Read, Write},
        net::TcpListener,
        path::{Path, PathBuf},
        sync::Arc,
    };

    use limpet_bench::engine::Engine;
    use limpet_store::{CqlStore, Store};
    use limpet_store_testing::conformance;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    const NET: &str = "127.0.14";

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Writes what the node shows, and its configuration.
    fn node(folder: &Path, ca: &CertifiedIssuer<'static, KeyPair>) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![format!("{NET}.1")]).unwrap();
        let certificate = params.signed_by(&key, ca).unwrap();
        let shown = folder.join("node.pem");
        fs::write(&shown, key.serialize_pem() + &certificate.pem() + &ca.pem()).unwrap();
        let yaml = folder.join("tls.yaml");
        let lines = format!(
            "client_encryption_options:\n  enabled: true\n  optional: true\n  require_client_auth: false\n  keystore: {}\n  \
             ssl_context_factory:\n    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory\n",
            shown.display()
        );
        fs::write(&yaml, lines).unwrap();
        yaml
    }

    async fn refusal(url: &str) -> String {
        let refused = CqlStore::open(url).await.err().expect("must be refused").to_string();
        println!("{refused}");
        assert!(!refused.contains("hush"), "{refused}");
        refused
    }

    /// A database without TLS: it answers anything with an error of the protocol, and ends.
    fn plaintext() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let _ = client.read(&mut [0; 1024]);
                let _ = client.write_all(b"\x84\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x00\x00\x0a\x00\x09Protocol!");
            }
        });
        address.to_string()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn cql_talks_tls_and_says_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (authority("ours"), authority("other"));
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (ca, wrong) = (file("ca.pem", ours.pem()), file("other.pem", other.pem()));
        let (empty, missing) = (file("empty.pem", "nothing\n".into()), folder.path().join("missing.pem"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cql-tls");
        let engine = Engine::start_with(1, &target, NET, Some(&node(folder.path(), &ours))).expect("an engine");
        let url = engine.store("tls");

        let store: Arc<dyn Store> = CqlStore::open(&format!("{url}?ca={ca}")).await.unwrap();
        for property in conformance::properties().iter().filter(|property| property.name.starts_with("sessions::")) {
            property.check(store.clone()).await;
        }

        let refused = refusal(&format!("{url}?ca={wrong}")).await;
        assert!(refused.contains("other.pem") && refused.contains("certificate"), "{refused}");
        let refused = refusal(&format!("cql://user:hush@{}/tls?ca={ca}", plaintext())).await;
        assert!(refused.contains("does not talk TLS"), "{refused}");
        let refused = refusal(&format!("{url}?ca={empty}")).await;
        assert!(refused.contains("empty.pem") && refused.contains("no certificate"), "{refused}");
        let refused = refusal(&format!("{url}?ca={}", missing.display())).await;
        assert!(refused.contains("missing.pem"), "{refused}");
        let refused = refusal("cql://user:hush@127.0.0.1:1/tls?ca=").await;
        assert!(refused.contains("PEM file"), "{refused}");
    }
}
