//! What a layer over another storage leaves as it is.

/// Writes methods of [`Storage`](crate::Storage) that pass on what they are asked to the storage in the
/// field `inner`: `pass_on!(inner: head, list, delete);` within an `impl`.
#[macro_export]
macro_rules! pass_on {
    ($inner:ident: $($method:ident),+ $(,)?) => {
        $($crate::pass_on!(@$method $inner);)+
    };
    (@put $inner:ident) => {
        fn put<'a>(
            &'a self,
            key: &str,
            run: &str,
        ) -> Result<Box<dyn $crate::Upload + 'a>, $crate::StorageError> {
            self.$inner.put(key, run)
        }
    };
    (@get $inner:ident) => {
        fn get(
            &self,
            key: &str,
            range: Option<std::ops::Range<u64>>,
        ) -> Result<Box<dyn std::io::Read + Send>, $crate::StorageError> {
            self.$inner.get(key, range)
        }
    };
    (@get_fresh $inner:ident) => {
        fn get_fresh(
            &self,
            key: &str,
        ) -> Result<Box<dyn std::io::Read + Send>, $crate::StorageError> {
            self.$inner.get_fresh(key)
        }
    };
    (@head $inner:ident) => {
        fn head(&self, key: &str) -> Result<$crate::ObjectInfo, $crate::StorageError> {
            self.$inner.head(key)
        }
    };
    (@list $inner:ident) => {
        fn list(
            &self,
            prefix: &str,
            visit: &mut dyn FnMut(&str, $crate::ObjectInfo) -> Result<(), $crate::StorageError>,
        ) -> Result<(), $crate::StorageError> {
            self.$inner.list(prefix, visit)
        }
    };
    (@delete $inner:ident) => {
        fn delete(&self, key: &str) -> Result<bool, $crate::StorageError> {
            self.$inner.delete(key)
        }
    };
    (@lock $inner:ident) => {
        fn lock(&self, key: &str, lock: &$crate::Lock) -> Result<(), $crate::StorageError> {
            self.$inner.lock(key, lock)
        }
    };
    (@sweep $inner:ident) => {
        fn sweep(&self, key: &str, run: &str) -> Result<u64, $crate::StorageError> {
            self.$inner.sweep(key, run)
        }
    };
    (@sweep_dead $inner:ident) => {
        fn sweep_dead(
            &self,
            key: &str,
            run: &str,
            min_age: std::time::Duration,
            is_alive: &dyn Fn(&str) -> bool,
        ) -> Result<u64, $crate::StorageError> {
            self.$inner.sweep_dead(key, run, min_age, is_alive)
        }
    };
    (@free_bytes $inner:ident) => {
        fn free_bytes(&self) -> Result<Option<u64>, $crate::StorageError> {
            self.$inner.free_bytes()
        }
    };
}
