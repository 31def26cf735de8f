//! ClickHouse, gone for a while: a proxy between the functions and a ClickHouse that others use
//! as well, and that nobody may stop.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on for as long as ClickHouse is to be there.
pub(super) struct Proxy {
    url: String,
    is_away: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port, for a ClickHouse that speaks plain HTTP.
    pub(super) async fn start(clickhouse: &str) -> anyhow::Result<Self> {
        let address = clickhouse.strip_prefix("http://").unwrap_or(clickhouse);
        let address = address.trim_end_matches('/').to_owned();
        ensure!(
            !address.contains("://") && !address.contains('/'),
            "--clickhouse-away cannot stand before {clickhouse}: only before http://host:port"
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (is_away, away) = watch::channel(false);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, address, away));
        Ok(Self {
            url,
            is_away,
            _serving: serving,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Cuts all connections, and cuts every new one at once for as long as `away` lasts.
    pub(super) async fn cut(&self, away: Duration) {
        eprintln!("ClickHouse is away for {away:?}");
        self.is_away.send_replace(true);
        tokio::time::sleep(away).await;
        self.is_away.send_replace(false);
        eprintln!("ClickHouse is back");
    }
}

async fn serve(listener: TcpListener, address: String, away: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (address, mut away) = (address.clone(), away.clone());
        connections.spawn(async move {
            // Either way both ends see that it broke off, and that is all they are to see.
            tokio::select! {
                biased;
                _ = away.wait_for(|is_away| *is_away) => {}
                _ = pass(client, &address) => {}
            }
        });
    }
}

async fn pass(mut client: TcpStream, address: &str) -> anyhow::Result<()> {
    let server = TcpStream::connect(address).await;
    let mut server = server.with_context(|| format!("connect to {address}"))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_connections_and_keeps_new_ones_out() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        let proxy = Proxy::start(&url).await.unwrap();
        let address = proxy.url().strip_prefix("http://").unwrap().to_owned();

        let mut client = TcpStream::connect(&address).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"?").await.unwrap();
        let mut byte = [0];
        served.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"?");

        proxy.is_away.send_replace(true);
        assert_eq!(client.read(&mut byte).await.unwrap_or(0), 0);
        let mut kept_out = TcpStream::connect(&address).await.unwrap();
        assert_eq!(kept_out.read(&mut byte).await.unwrap_or(0), 0);

        proxy.is_away.send_replace(false);
        let mut again = TcpStream::connect(&address).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        served.write_all(b"!").await.unwrap();
        again.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"!");
        assert!(Proxy::start("https://x:8443").await.is_err());
    }
}
