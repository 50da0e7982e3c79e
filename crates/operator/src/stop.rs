//! Being told to stop.

use tokio::sync::watch;

/// Whether this process was told to stop. Clones share it.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// One that is told when `signal` ends.
    pub fn when(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signal.await;
            tracing::info!("told to stop");
            sender.send_replace(true);
            // Whoever asks later must still hear it.
            sender.closed().await;
        });
        Self(receiver)
    }

    /// Whether it was told.
    pub fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it is told.
    pub async fn told(mut self) {
        if self.0.wait_for(|told| *told).await.is_err() {
            // Nobody is left to tell it.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_part_of_the_process_hears_it_also_later() {
        let (end, signal) = tokio::sync::oneshot::channel::<()>();
        let stop = Stop::when(async move {
            let _ = signal.await;
        });
        assert!(!stop.is_told());
        end.send(()).unwrap();
        stop.clone().told().await;
        stop.clone().told().await;
        assert!(stop.is_told());
    }
}
