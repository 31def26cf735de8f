//! Valkey, made to forget: for tests.

use redis::RedisResult;

/// Deletes every key that begins with `beginning`, as far as that goes what a FLUSHALL does, and
/// returns how many there were.
pub async fn forget(url: &str, beginning: &str) -> RedisResult<u64> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let (pattern, mut cursor, mut deleted) = (format!("{beginning}*"), 0_u64, 0);
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&pattern)
            .arg("COUNT")
            .arg(1000)
            .query_async(&mut connection)
            .await?;
        if !keys.is_empty() {
            deleted += redis::cmd("UNLINK")
                .arg(keys)
                .query_async::<u64>(&mut connection)
                .await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(deleted);
        }
    }
}
