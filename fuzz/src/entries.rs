//! What is fuzzed: each entry takes any bytes, hands them to a parser as the network would, and asserts what must hold of
//! whatever came out. The fuzz targets and the replay on stable (`tests/corpora/main.rs`) run the same functions.

use bytes::{Bytes, BytesMut};
use limpet_link::token::{Token, TokenKey};
use limpet_shared::{
    AesKey, UnixMicros, admin,
    gwmp::{self, DownKind, UpKind},
    link::{self, Ack, ToBalancer, ToWorker, UplinkFrame},
    lorawan::{self, DataFrame, DataSpec, Frame, JoinAccept, JoinRequest, Keys, mac},
};
use prost::Message;

/// Takes any bytes, and panics only if something is wrong.
pub type Entry = fn(&[u8]);

/// The entries, by the names of their folders in `fuzz/seeds`.
pub const ENTRIES: [(&str, Entry); 4] =
    [("gwmp", gwmp_datagram), ("phypayload", phy_payload), ("link", link_stream), ("token", join_token)];

/// A datagram, as it comes to the balancer, to a worker, or to a gateway.
pub fn gwmp_datagram(datagram: &[u8]) {
    if let Ok(up) = gwmp::parse_upstream(datagram) {
        assert!(matches!(up.version, 1 | 2));
        match up.kind {
            UpKind::PushData => push_data(up.json),
            UpKind::TxAck => drop(gwmp::parse_tx_ack(up.json)),
            UpKind::PullData => assert!(up.json.is_empty()),
        }
    }
    if let Ok(down) = gwmp::parse_downstream(datagram)
        && down.kind == DownKind::PullResp
        && let Ok(txpk) = gwmp::parse_pull_resp(down.json)
    {
        assert!(txpk.data.len() <= gwmp::MAX_PHY_PAYLOAD);
        let again = gwmp::parse_pull_resp(&txpk.to_json());
        assert!(again.is_ok(), "written as {}", String::from_utf8_lossy(&txpk.to_json()));
    }
}

fn push_data(json: &[u8]) {
    let Ok(data) = gwmp::parse_push_data(json) else { return };
    assert!(data.rxpk.len() <= gwmp::MAX_RXPK);
    let good: Vec<_> = data.rxpk.into_iter().flatten().collect();
    for rxpk in &good {
        assert!(rxpk.data.len() <= gwmp::MAX_PHY_PAYLOAD);
        phy_payload(&rxpk.data);
    }
    let stat = data.stat.and_then(Result::ok);
    let written = gwmp::push_data_json(&good, stat.as_ref());
    let again = gwmp::parse_push_data(&written);
    let again: Option<Vec<_>> = again.ok().map(|again| again.rxpk.into_iter().flatten().collect());
    assert_eq!(again.as_deref(), Some(&good[..]), "written as {}", String::from_utf8_lossy(&written));
}

const APP_KEY: AesKey = AesKey([1; 16]);
const KEYS: Keys = Keys { nwk_s_key: AesKey([2; 16]), app_s_key: AesKey([3; 16]) };

/// A PHYPayload as a gateway received it.
pub fn phy_payload(phy: &[u8]) {
    // A device reads downlinks with the same codec.
    let _ = JoinAccept::open(phy, &APP_KEY);
    match lorawan::parse(phy) {
        Ok(Frame::JoinRequest(request)) => join_request(&request),
        Ok(Frame::Data(frame)) => data_frame(&frame),
        Ok(Frame::JoinAccept(bytes)) => assert_eq!(bytes, phy),
        Ok(Frame::Rejoin | Frame::Proprietary) | Err(_) => {}
    }
}

fn join_request(request: &JoinRequest) {
    let _ = request.verify(&APP_KEY);
    let phy = JoinRequest::build(request.join_eui, request.dev_eui, request.dev_nonce, &APP_KEY);
    let Ok(Frame::JoinRequest(built)) = lorawan::parse(&phy) else { panic!("a built join request is none") };
    assert!(built.verify(&APP_KEY));
    assert_eq!(
        (built.join_eui, built.dev_eui, built.dev_nonce),
        (request.join_eui, request.dev_eui, request.dev_nonce)
    );
}

/// What was read can be written again, and then says the same and is authentic.
fn data_frame(frame: &DataFrame<'_>) {
    let fcnt = 0x0007_0000 | u32::from(frame.fcnt);
    let _ = frame.verify(&KEYS.nwk_s_key, fcnt);
    let clear = frame.decrypt(&KEYS, fcnt);
    assert_eq!(clear.len(), frame.payload.len());
    commands(frame.fopts);
    if frame.fport == Some(0) {
        commands(&clear);
    }
    let spec = DataSpec {
        direction: frame.direction,
        confirmed: frame.confirmed,
        dev_addr: frame.dev_addr,
        fctrl: frame.fctrl,
        fcnt,
        fopts: frame.fopts,
        fport: frame.fport,
        payload: &clear,
    };
    let phy = match lorawan::build_data(&spec, &KEYS) {
        Ok(phy) => phy,
        Err(error) => panic!("{spec:?} was read, and cannot be written: {error}"),
    };
    let Ok(Frame::Data(built)) = lorawan::parse(&phy) else { panic!("a built data frame is none") };
    assert!(built.verify(&KEYS.nwk_s_key, fcnt));
    assert_eq!(built.decrypt(&KEYS, fcnt), clear);
    assert_eq!((built.dev_addr, built.fctrl, built.fcnt), (frame.dev_addr, frame.fctrl, frame.fcnt));
    assert_eq!((built.fopts, built.fport, built.payload), (frame.fopts, frame.fport, frame.payload));
}

fn commands(bytes: &[u8]) {
    let up = mac::parse_uplink(bytes);
    let mut written = Vec::new();
    up.commands.iter().for_each(|command| command.encode(&mut written));
    assert_eq!(mac::parse_uplink(&written).commands, up.commands);
    let down = mac::parse_downlink(bytes);
    written.clear();
    down.commands.iter().for_each(|command| command.encode(&mut written));
    assert_eq!(mac::parse_downlink(&written).commands, down.commands);
}

/// Bytes of a stream of the link, in whichever direction.
pub fn link_stream(stream: &[u8]) {
    let mut buffer = BytesMut::from(stream);
    while let Ok(Some(body)) = link::next_message(&mut buffer) {
        assert!(body.len() <= link::MAX_MESSAGE);
        same_again::<Ack>(&body);
        same_again::<ToBalancer>(&body);
        same_again::<ToWorker>(&body);
        if let Some(frame) = UplinkFrame::decode(body.clone()) {
            let mut written = BytesMut::new();
            frame.encode(&mut written);
            assert_eq!(link::next_message(&mut written), Ok(Some(body.clone())));
        }
        // What travels inside the operator's messages is JSON.
        drop(serde_json::from_slice::<admin::Request>(&body));
        drop(serde_json::from_slice::<admin::Reply>(&body));
    }
}

/// A message that was read is written as bytes that read the same. Compared as bytes: a NaN differs from itself.
fn same_again<M: Message + Default + std::fmt::Debug>(body: &Bytes) {
    let Ok(message) = M::decode(body.clone()) else { return };
    let mut framed = BytesMut::new();
    link::encode(&message, &mut framed);
    let Ok(Some(written)) = link::next_message(&mut framed) else { panic!("{message:?} was not written whole") };
    match M::decode(written.clone()) {
        Ok(again) => assert_eq!(again.encode_to_vec(), &written[..]),
        Err(error) => panic!("{message:?} was written as what cannot be read: {error}"),
    }
}

/// A join token as someone pastes it. Nobody without the cluster's key can make one that passes.
pub fn join_token(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.as_str(), text.trim());
        assert!(!token.addresses.is_empty());
        assert!(!format!("{token:?}").contains(text.trim()), "a token shows itself in logs");
    }
    // The seeds are signed with another key.
    assert!(TokenKey::new(&[0x5a; 32]).verify(text, UnixMicros(0)).is_err(), "a forged token passed");
}
