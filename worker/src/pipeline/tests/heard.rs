//! What events say of how a frame was heard.

use limpet_shared::RadioTime;

use super::*;

impl Net {
    /// A PUSH_DATA of one packet with these fields besides, and of this status.
    fn pushed(&self, fcnt: u32, fields: &str, stat: &str) -> UplinkFrame {
        let frame = self.frame(1, CHANNEL, &uplink(fcnt, false), 9);
        let json = String::from_utf8(frame.datagram[12..].to_vec()).unwrap().replace("\"stat\":1,", "");
        let json = json.replacen("{\"tmst\"", &format!("{{{fields}\"tmst\""), 1);
        let json = json.replacen("{\"rxpk\"", &format!("{{\"stat\":{stat},\"rxpk\""), 1);
        UplinkFrame { datagram: gwmp::push_data(2, 1, Eui64(1), json.as_bytes()).into(), ..frame }
    }

    async fn told_of(&self, fcnt: u32, fields: &str, stat: &str) -> RxInfo {
        // What is remembered of the gateway is forgotten by then.
        tokio::time::sleep(Duration::from_secs(11)).await;
        self.told_at_once_of(fcnt, fields, stat).await
    }

    async fn told_at_once_of(&self, fcnt: u32, fields: &str, stat: &str) -> RxInfo {
        assert_eq!(self.give(0, self.pushed(fcnt, fields, stat)).await.unwrap(), DONE);
        let event = self.webhook.events.lock().last().unwrap().clone();
        let EventKind::Up(up) = event.kind else { panic!("no up event: {event:?}") };
        assert_eq!((up.fcnt, up.receptions.len()), (fcnt, 1));
        up.receptions[0].rx.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_tells_crc_fine_time_metadata_and_each_antenna() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let rx = net.told_of(0, "", "{}").await;
    assert_eq!((rx.no_crc, rx.fine_time, rx.antennas.len(), rx.metadata.len()), (false, None, 0, 0));
    let fields = r#""stat":0,"tmms":1384035200123,"ftime":456789012,"meta":{"serial":"A7","n":1},
        "rsig":[{"ant":0,"chan":3,"rssic":-90,"lsnr":-2.5},{"ant":1,"chan":11,"rssic":-80,"lsnr":4.0,"ftime":7}],"#;
    let rx = net.told_of(1, fields, "{}").await;
    assert_eq!((rx.no_crc, rx.tmms, rx.fine_time), (true, Some(1_384_035_200_123), Some(456_789_012)));
    assert_eq!(rx.metadata, Tags::from([("serial".into(), "A7".into())]));
    let antenna = |antenna, channel, rssi, snr, fine_time| AntennaSignal { antenna, channel, rssi, snr, fine_time };
    assert_eq!(rx.antennas, [antenna(1, 11, -80, 4.0, Some(7)), antenna(0, 3, -90, -2.5, None)]);
    assert_eq!((rx.rssi, rx.snr, rx.channel), (-80, 4.0, 11), "the best one's");
}

/// As in ChirpStack the gateway's own word replaces what was provisioned; 0/0 is no word, and no place on earth neither.
#[tokio::test(start_paused = true)]
async fn an_event_tells_where_the_gateway_is() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    assert_eq!(net.told_of(0, "", r#"{"lati":0,"long":0,"alti":0}"#).await.location, None);
    let provisioned = Location { latitude: 53.5, longitude: 10.0, altitude: 20.0, ..Location::default() };
    let mut gateway = net.store.gateway(Eui64(1)).await.unwrap().unwrap().0;
    gateway.location = Some(provisioned);
    net.store.update_gateway(&gateway).await.unwrap();
    assert_eq!(net.told_of(1, "", r#"{"lati":0,"long":0}"#).await.location, Some(provisioned));
    assert_eq!(net.told_of(2, "", r#"{"lati":91,"long":10}"#).await.location, Some(provisioned));
    net.told_of(3, "", r#"{"lati":46.24,"long":3.25,"alti":145}"#).await;
    let told = net.told_of(4, "", r#"{"lati":0.0,"long":0.0,"alti":0}"#).await.location.unwrap();
    assert_eq!((told.latitude, told.longitude, told.altitude, told.source), (46.24, 3.25, 145.0, 1));
    let moved = net.told_at_once_of(5, "", r#"{"lati":46.25,"long":3.25,"alti":145}"#).await.location.unwrap();
    assert_eq!(moved.latitude, 46.25, "of the same datagram, and not when it is looked up again");
}

/// Rows of the version before have none of this.
#[test]
fn a_reception_stored_before_is_still_read() {
    let old = r#"{"tmst":7,"time":null,"tmms":null,"rssi":-80,"snr":5.0,"channel":1,"rf_chain":0,"board":null,"antenna":null,
        "code_rate":"4/5"}"#;
    let read: RxInfo = serde_json::from_str(old).unwrap();
    let counter = read.radio.as_ref().and_then(RadioTime::counter);
    assert_eq!((counter, read.no_crc, read.location, read.antennas.len()), (Some(7), false, None, 0));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(old).unwrap(), "and what is not known takes no room");
}
