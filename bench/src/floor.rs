//! A proxy that does nothing but copy bytes: what a proxy cannot cost less than.
//!
//! One thread, one task for each client with a server connection of its own, one buffer, no look at what is copied. It
//! reads with `poll_read`, after which tokio knows that a short read has emptied the socket; `try_read` would ask once more.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::Error;

/// Copies until the process is killed.
pub(crate) fn serve(listen: SocketAddr, to: SocketAddr) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Error::io("start the runtime"))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(Error::io("listen"))?;
        loop {
            let (client, _) = listener.accept().await.map_err(Error::io("accept"))?;
            tokio::spawn(async move {
                // Either side's end is the end; the clients of a benchmark do not ask why.
                let _ = copy(client, to).await;
            });
        }
    })
}

async fn copy(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let (from_client, count) = poll_fn(|context| {
            if let Poll::Ready(count) = read(&mut client, context, &mut buffer) {
                return Poll::Ready((true, count));
            }
            let count = ready!(read(&mut server, context, &mut buffer));
            Poll::Ready((false, count))
        })
        .await;
        let filled = match count? {
            0 => return Ok(()),
            count => buffer.get(..count).unwrap_or_default(),
        };
        if from_client {
            server.write_all(filled).await?;
        } else {
            client.write_all(filled).await?;
        }
    }
}

fn read(
    stream: &mut TcpStream,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
