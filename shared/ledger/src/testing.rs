//! Valkey, made to forget: for tests.

use std::time::Duration;

use redis::{AsyncConnectionConfig, RedisResult};

/// One step: nobody finds one key gone and another that goes with it still there.
const FORGET: &str = "
local cursor, deleted = '0', 0
repeat
    local found = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
    cursor = found[1]
    for _, key in ipairs(found[2]) do
        deleted = deleted + redis.call('UNLINK', key)
    end
until cursor == '0'
return deleted
";

/// How long that may take, with millions of keys.
const FORGET_WITHIN: Duration = Duration::from_secs(30);

/// Deletes every key that begins with `beginning` in one step, as a FLUSHALL does all of them,
/// and returns how many there were. Valkey answers nobody else meanwhile.
pub async fn forget_at_once(url: &str, beginning: &str) -> RedisResult<u64> {
    let client = redis::Client::open(url)?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(FORGET_WITHIN));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    redis::cmd("EVAL")
        .arg(FORGET)
        .arg(0)
        .arg(format!("{beginning}*"))
        .query_async(&mut connection)
        .await
}

/// Deletes every key that begins with `beginning`, one after the other, and returns how many there
/// were.
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
