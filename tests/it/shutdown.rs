//! How the server ends.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::Server;

#[tokio::test]
async fn both_signals_end_an_idle_server_with_zero() {
    for signal in ["TERM", "INT"] {
        let server = Server::ephemeral(&[]).await;
        let mut client = HealthClient::new(server.channel().await);
        client.check(HealthCheckRequest::default()).await.unwrap();
        server.signal(signal).await;
        let (status, printed, log) = server.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(printed, "", "stdout is for the one line");
        assert!(log.contains(&format!("SIG{signal}")) && log.contains("stopped"), "{log}");
    }
}
