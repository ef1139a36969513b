/*-------------------------------------------------------------------------
 *
 * store.c
 *		The tables taskshed.task and taskshed.alarm, by direct access.
 *
 * What a task is (task) and when it runs next (alarm) are two rows, joined by
 * an internal id.  A recurring task moves its run_at at every run.  Were that
 * in one row with the keys, each move would add an entry with the same key to
 * each index, and while somebody holds an old snapshot none of them could be
 * cleaned away: the unique check of every further move would visit them all.
 * So the alarm's indexes all carry run_at, none of them is unique, and the
 * newest version of an alarm is the first one met when (id, run_at) is read
 * backwards.
 *
 * Rows are read and written through the table and index access methods, as a
 * logical replication worker does, not through SPI: out of reach of the
 * caller's search_path, row security, read-only and isolation settings, and
 * in need of no privileges; checking those is the API's business.
 *
 * Reads use SnapshotSelf, which sees what is committed now and what this
 * transaction did itself.  It takes no predicate locks, so a SERIALIZABLE run
 * conflicts with nobody over our tables.  Such a read can miss a row whose
 * update commits at that moment, since it may pass the new version's place
 * before and the old one's place after; so "not found" is asked once more
 * with a fresh MVCC snapshot, applied by hand to all versions that a scan meets
 * (store_sees), since a scan with such a snapshot would take those locks.
 *
 * Lock order: a task's alarm is locked before its task row is written.  All
 * of a task's changes therefore queue at its alarm.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type_d.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "taskshed.h"

/* Counts of attempts and the like stay below, so that two can be added. */
#define MAX_COUNT	(PG_INT32_MAX / 2)

/* The indexes, by name. */
typedef enum StoreIndex
{
	TASK_PKEY,
	TASK_KEY,
	TASK_GROUP,
	ALARM_QUEUE,
	ALARM_TASK,
	ALARM_FAILED,
	STORE_NINDEXES
} StoreIndex;

static const char *const store_index_names[STORE_NINDEXES] = {
	"task_pkey",
	"task_key",
	"task_group",
	"alarm_queue",
	"alarm_task",
	"alarm_failed"
};

/* Their keys. */
static const IndexShape store_index_shapes[STORE_NINDEXES] = {
	[TASK_PKEY] = {true, 1, {Anum_task_id}},
	[TASK_KEY] = {true, 2, {Anum_task_owner, Anum_task_task_id}},
	[TASK_GROUP] = {false, 3, {Anum_task_owner, Anum_task_group_id, Anum_task_task_id}},
	[ALARM_QUEUE] = {false, 3, {Anum_alarm_owner, Anum_alarm_run_at, Anum_alarm_id}},
	[ALARM_TASK] = {false, 2, {Anum_alarm_id, Anum_alarm_run_at}},
	[ALARM_FAILED] = {false, 1, {Anum_alarm_failed_at}}
};

/* The tables' columns. */
static const ColumnShape task_columns[Natts_task] = {
	{INT8OID, true}, {OIDOID, true}, {TIMESTAMPTZOID, true}, {NAMEOID, true}, {BOOLOID, true},
	{TEXTOID, true}, {TEXTOID, false}, {TEXTOID, true}, {JSONBOID, true}, {TEXTOID, true},
	{INTERVALOID, false}, {TEXTOID, false}, {TEXTOID, true}, {TIMESTAMPTZOID, false},
	{INT4OID, false}, {TEXTOID, true}, {INTERVALOID, false}, {INTERVALOID, false},
	{INT4OID, false}, {INTERVALOID, false}, {FLOAT8OID, false}, {INTERVALOID, false},
	{TEXTOID, false}
};

static const ColumnShape alarm_columns[Natts_alarm] = {
	{INT8OID, true}, {TIMESTAMPTZOID, true}, {TIMESTAMPTZOID, true}, {TIMESTAMPTZOID, true},
	{INT8OID, true}, {INT8OID, true}, {OIDOID, true}, {INT4OID, true}, {INT4OID, true},
	{INT4OID, true}, {TIMESTAMPTZOID, false}, {TIMESTAMPTZOID, false}, {TIMESTAMPTZOID, false},
	{TIMESTAMPTZOID, false}, {TIMESTAMPTZOID, false}, {TIMESTAMPTZOID, false}, {TEXTOID, false},
	{TEXTOID, false}, {TEXTOID, false}
};

static const ColumnShape home_columns[Natts_home] = {
	{OIDOID, true}, {BOOLOID, true}
};

/* OIDs of our relations in this database; valid if the flag says so. */
static struct
{
	bool		valid;
	StoreState	state;			/* as last found, if not valid */
	char		version[64];	/* of the extension, as last found */
	Oid			task;
	Oid			alarm;
	Oid			sequence;
	Oid			home;
	Oid			indexes[STORE_NINDEXES];
}			oids;

/* What writing to the tables takes. */
static WriterCache task_cache;
static WriterCache alarm_cache;

/* The relcache has been told that a relation, or any of them, has changed. */
void
store_relation_changed(Oid relid)
{
	writer_invalidate(&task_cache, relid);
	writer_invalidate(&alarm_cache, relid);
	if (relid == InvalidOid || relid == oids.task || relid == oids.alarm ||
		relid == oids.sequence || relid == oids.home)
		oids.valid = false;
}

/*
 * A command may have made the extension another version.  pg_extension has no
 * cache, so nothing would tell other sessions that what they have found out is
 * out of date when this commits.
 */
void
store_extension_changed(void)
{
	Oid			schema = get_namespace_oid("taskshed", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid("task", schema) : InvalidOid;

	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

/* The version of the extension in this database, NULL if it is not there. */
static char *
store_extension_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("taskshed"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		version = isnull ? pstrdup("") : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/*
 * Are our tables there, of our version and as they were made?  Their names are
 * not enough: where the extension is not installed, anybody who may create a
 * schema could make tables of these names, and have what is in them run as
 * whatever role they say.  A member of the extension is what CREATE EXTENSION
 * has made, and only superusers can run that.
 */
bool
store_exists(void)
{
	Oid			schema;
	Oid			extension;
	char	   *version;
	bool		altered;

	if (oids.valid)
		return true;

	do
	{
		CHECK_FOR_INTERRUPTS();
		oids.state = STORE_ABSENT;
		extension = get_extension_oid("taskshed", true);
		if (!OidIsValid(extension))
			return false;

		/* what changes while we look must be able to reset this */
		oids.valid = true;
		schema = get_namespace_oid("taskshed", true);
		oids.task = get_relname_relid("task", schema);
		oids.alarm = get_relname_relid("alarm", schema);
		oids.sequence = get_relname_relid("task_seq", schema);
		oids.home = get_relname_relid("home", schema);
		version = store_extension_version();
		if (version == NULL || strcmp(version, TASKSHED_VERSION) != 0)
		{
			oids.valid = false;
			if (version == NULL)
				return false;
			strlcpy(oids.version, version, sizeof(oids.version));
			pfree(version);
			oids.state = STORE_OTHER_VERSION;
			return false;
		}
		pfree(version);
		altered = (getExtensionOfObject(RelationRelationId, oids.task) != extension ||
				   getExtensionOfObject(RelationRelationId, oids.alarm) != extension ||
				   getExtensionOfObject(RelationRelationId, oids.home) != extension ||
				   !shape_fits(oids.task, Natts_task, task_columns) ||
				   !shape_fits(oids.alarm, Natts_alarm, alarm_columns) ||
				   !shape_fits(oids.home, Natts_home, home_columns) ||
				   get_rel_relkind(oids.sequence) != RELKIND_SEQUENCE);
		for (int i = 0; i < STORE_NINDEXES; i++)
		{
			oids.indexes[i] = get_relname_relid(store_index_names[i], schema);
			altered = altered ||
				!shape_index_fits(oids.indexes[i], i <= TASK_GROUP ? oids.task : oids.alarm,
								  &store_index_shapes[i]);
		}
	} while (!oids.valid);		/* look once more, then */

	oids.state = altered ? STORE_ALTERED : STORE_FINE;
	oids.valid = !altered;
	return oids.valid;
}

/* What the last look has found. */
StoreState
store_state(void)
{
	return oids.valid ? STORE_FINE : oids.state;
}

/* Is the library's version an earlier one than the extension's, as last found? */
static bool
store_library_is_older(void)
{
	const char *ours = TASKSHED_VERSION;
	const char *theirs = oids.version;

	for (;;)
	{
		char	   *end;
		long		a = strtol(ours, &end, 10);
		long		b;

		ours = end;
		b = strtol(theirs, &end, 10);
		theirs = end;
		if (a != b)
			return a < b;
		if (*ours != '.' || *theirs != '.')
			return *ours == '\0' && *theirs != '\0';
		ours++;
		theirs++;
	}
}

/* Which versions the library and the extension were found to be. */
char *
store_version_mismatch(void)
{
	return psprintf("taskshed library is version %s but extension is version %s in this database",
					TASKSHED_VERSION, oids.version);
}

/* Says why there are no tables to work with. */
void
store_report(int elevel, StoreState state)
{
	switch (state)
	{
		case STORE_ALTERED:
			ereport(elevel,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("tables of extension \"taskshed\" are not as it has made them"),
					 errhint("Undo what was changed in schema taskshed, or drop the extension and create it again.")));
			break;
		case STORE_OTHER_VERSION:
			ereport(elevel,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg_internal("%s", store_version_mismatch()),
					 store_library_is_older() ?
					 errhint("Restart the server, so that it loads the library that was installed with the new version.") :
					 errhint("ALTER EXTENSION taskshed UPDATE brings the extension up to date.")));
			break;
		default:
			ereport(elevel,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension \"taskshed\" is not installed in this database"),
					 errhint("CREATE EXTENSION taskshed installs it.")));
	}
}

static void
store_require(bool there)
{
	if (!there)
		store_report(ERROR, store_state());
}

/*
 * For functions that do more than open the tables: refuses to work for another
 * version of the extension.  55000.
 */
void
store_require_version(void)
{
	if (!store_exists() && store_state() == STORE_OTHER_VERSION)
		store_report(ERROR, STORE_OTHER_VERSION);
}

/*
 * Opens both tables with a lock of that strength, or returns NULL if they are
 * not there.  The caller is in a transaction with an active snapshot.
 *
 * Who had to wait for the lock may find the tables dropped, and others in their
 * place, if the extension was created again in the same transaction.
 */
Store *
store_try_open(LOCKMODE lockmode)
{
	Store	   *store;
	Relation	task;
	Relation	alarm;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!store_exists())
			return NULL;
		task = try_table_open(oids.task, lockmode);
		alarm = task != NULL ? try_table_open(oids.alarm, lockmode) : NULL;
		if (alarm != NULL && oids.valid)
			break;

		/* what was waited for was a change: look at what there is now */
		if (alarm != NULL)
			table_close(alarm, lockmode);
		if (task != NULL)
			table_close(task, lockmode);
		oids.valid = false;
	}

	store = palloc0(sizeof(Store));
	store->task = task;
	store->alarm = alarm;
	store->task_slot = table_slot_create(store->task, NULL);
	store->alarm_slot = table_slot_create(store->alarm, NULL);
	return store;
}

/*
 * Locks the tables as DROP EXTENSION will, and an update may, in the order in which our processes
 * open them: the first is the one whose lock they have or wait for whenever
 * they have any other, but for the history's.
 */
void
store_lock_for_drop(void)
{
	if (!store_exists())
		return;
	LockRelationOid(oids.task, AccessExclusiveLock);
	LockRelationOid(oids.alarm, AccessExclusiveLock);
}

/* As store_try_open for those who need them: 55000 if they are not there. */
Store *
store_open(LOCKMODE lockmode)
{
	Store	   *store = store_try_open(lockmode);

	store_require(store != NULL);
	return store;
}

/* Closes the tables; the locks go too if lockmode is not NoLock. */
void
store_close(Store *store, LOCKMODE lockmode)
{
	ExecDropSingleTupleTableSlot(store->task_slot);
	ExecDropSingleTupleTableSlot(store->alarm_slot);
	for (int i = 0; i < STORE_NINDEXES; i++)
	{
		if (store->indexes[i] != NULL)
			index_close(store->indexes[i], AccessShareLock);
	}
	if (store->task_writer != NULL)
		writer_close(store->task_writer);
	if (store->alarm_writer != NULL)
		writer_close(store->alarm_writer);
	table_close(store->task, lockmode);
	table_close(store->alarm, lockmode);
	pfree(store);
}

/* An index for reading, opened when it is first asked for. */
static Relation
store_index(Store *store, StoreIndex which)
{
	if (store->indexes[which] == NULL)
	{
		store_require(store_exists());
		store->indexes[which] = index_open(oids.indexes[which], AccessShareLock);
	}
	return store->indexes[which];
}

Relation
store_queue_index(Store *store)
{
	return store_index(store, ALARM_QUEUE);
}

Relation
store_failed_index(Store *store)
{
	return store_index(store, ALARM_FAILED);
}

/* A table open for writing, from when that is first asked for until the Store is closed. */
static Writer *
store_writer(Store *store, Writer **writer, WriterCache *cache, Relation rel)
{
	if (*writer == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(store));

		*writer = writer_open(cache, rel);
		MemoryContextSwitchTo(old);
	}
	return *writer;
}

static Writer *
store_task_writer(Store *store)
{
	return store_writer(store, &store->task_writer, &task_cache, store->task);
}

static Writer *
store_alarm_writer(Store *store)
{
	return store_writer(store, &store->alarm_writer, &alarm_cache, store->alarm);
}

/* The table that says where the tasks are at home; see home.c. */
Oid
store_home_relid(void)
{
	store_require(store_exists());
	return oids.home;
}

/* A new internal id.  Needs no privilege on the sequence. */
int64
store_new_id(void)
{
	store_require(store_exists());
	return nextval_internal(oids.sequence, false);
}

/* Copies the row in a slot into the current memory context. */
static void
store_copy_row(Relation heap, TupleTableSlot *slot, ItemPointer tid, Datum *values, bool *nulls)
{
	HeapTuple	tuple = ExecCopySlotHeapTuple(slot);

	*tid = slot->tts_tid;
	heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);
}

/*
 * Does an MVCC snapshot see the row version in slot, which a scan with
 * SnapshotAny has found?
 */
bool
store_sees(Snapshot snapshot, TupleTableSlot *slot)
{
	BufferHeapTupleTableSlot *place = (BufferHeapTupleTableSlot *) slot;
	bool		sees;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	LockBuffer(place->buffer, BUFFER_LOCK_SHARE);
	sees = HeapTupleSatisfiesVisibility(place->base.tuple, snapshot, place->buffer);
	LockBuffer(place->buffer, BUFFER_LOCK_UNLOCK);
	return sees;
}

/*
 * Finds one row by an index and copies it into the current memory context.
 * Returns false if there is none.
 */
static bool
store_fetch(Relation heap, Relation index, TupleTableSlot *slot,
			ScanKey keys, int nkeys, ScanDirection direction,
			ItemPointer tid, Datum *values, bool *nulls)
{
	bool		found = false;

	for (int attempt = 0; !found && attempt < 2; attempt++)
	{
		Snapshot	snapshot = NULL;
		IndexScanDesc scan;

		if (attempt > 0)
			snapshot = RegisterSnapshot(GetLatestSnapshot());

		scan = compat_index_beginscan(heap, index, attempt == 0 ? SnapshotSelf : SnapshotAny, nkeys);
		index_rescan(scan, keys, nkeys, NULL, 0);
		while (!found && index_getnext_slot(scan, direction, slot))
		{
			if (attempt > 0 && !store_sees(snapshot, slot))
				continue;
			store_copy_row(heap, slot, tid, values, nulls);
			found = true;
		}
		index_endscan(scan);
		ExecClearTuple(slot);

		if (attempt > 0)
			UnregisterSnapshot(snapshot);
	}
	return found;
}

bool
store_find_task(Store *store, Oid owner, Datum task_id, TaskRow *row)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, task_id);
	return store_fetch(store->task, store_index(store, TASK_KEY), store->task_slot,
					   keys, 2, ForwardScanDirection,
					   &row->tid, row->values, row->nulls);
}

bool
store_get_task(Store *store, int64 id, TaskRow *row)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	return store_fetch(store->task, store_index(store, TASK_PKEY), store->task_slot,
					   &key, 1, ForwardScanDirection,
					   &row->tid, row->values, row->nulls);
}

/* A time that can be reckoned with. */
static TimestampTz
store_finite(TimestampTz time)
{
	return Max(MIN_TIMESTAMP, Min(time, END_TIMESTAMP - 1));
}

/*
 * Brings what somebody may have written by hand into the range of what we write
 * ourselves, so that arithmetic on it cannot overflow.
 */
static void
store_mend_alarm(AlarmRow *row)
{
	ROW_SET(TimestampTz, row, alarm_run_at, store_finite(ROW_GET(TimestampTz, row, alarm_run_at)));
	ROW_SET(TimestampTz, row, alarm_scheduled_at,
			store_finite(ROW_GET(TimestampTz, row, alarm_scheduled_at)));
	ROW_SET(TimestampTz, row, alarm_anchor, store_finite(ROW_GET(TimestampTz, row, alarm_anchor)));
	if (!ROW_ISNULL(row, alarm_resume_at))
		ROW_SET(TimestampTz, row, alarm_resume_at,
				store_finite(ROW_GET(TimestampTz, row, alarm_resume_at)));
	ROW_SET(Int64, row, alarm_run_count,
			Max(0, Min(ROW_GET(Int64, row, alarm_run_count), PG_INT64_MAX - 1)));
	ROW_SET(Int32, row, alarm_attempt,
			Max(0, Min(ROW_GET(Int32, row, alarm_attempt), MAX_COUNT)));
	ROW_SET(Int32, row, alarm_failures_in_row,
			Max(0, Min(ROW_GET(Int32, row, alarm_failures_in_row), MAX_COUNT)));
	ROW_SET(Int32, row, alarm_interruptions,
			Max(0, Min(ROW_GET(Int32, row, alarm_interruptions), MAX_COUNT)));
}

bool
store_get_alarm(Store *store, int64 id, AlarmRow *row)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	if (!store_fetch(store->alarm, store_index(store, ALARM_TASK), store->alarm_slot,
					 &key, 1, BackwardScanDirection,
					 &row->tid, row->values, row->nulls))
		return false;
	store_mend_alarm(row);
	return true;
}

/*
 * The same for one that somebody has seen at a place, or in another file that
 * the table had then.  It is looked for where it may have moved to; a row that
 * is there now and has its id is the one, for no other version of it is valid.
 */
bool
store_get_alarm_at(Store *store, int64 id, const ItemPointerData *place, AlarmRow *row)
{
	ItemPointerData tid = *place;

	if (ItemPointerIsValid(&tid) &&
		ItemPointerGetBlockNumber(&tid) < RelationGetNumberOfBlocks(store->alarm) &&
		table_tuple_fetch_row_version(store->alarm, &tid, SnapshotSelf, store->alarm_slot))
	{
		bool		isnull;
		bool		same = (DatumGetInt64(slot_getattr(store->alarm_slot, Anum_alarm_id,
													   &isnull)) == id);

		if (same)
			store_copy_row(store->alarm, store->alarm_slot, &row->tid, row->values, row->nulls);
		ExecClearTuple(store->alarm_slot);
		if (same)
		{
			store_mend_alarm(row);
			return true;
		}
	}
	return store_get_alarm(store, id, row);
}

/* Locks the alarm at row->tid, or its newest version, and reads that. */
static TM_Result
store_lock_version(Store *store, AlarmRow *row, LockWaitPolicy wait_policy)
{
	TM_Result	result;
	TM_FailureData tmfd;

	result = table_tuple_lock(store->alarm, &row->tid, SnapshotAny, store->alarm_slot,
							  GetCurrentCommandId(false), LockTupleExclusive,
							  wait_policy, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							  &tmfd);
	if (result != TM_Ok)
	{
		ExecClearTuple(store->alarm_slot);
		return result;
	}

	store_copy_row(store->alarm, store->alarm_slot, &row->tid, row->values, row->nulls);
	store_mend_alarm(row);
	ExecClearTuple(store->alarm_slot);
	return TM_Ok;
}

/*
 * Locks a task's alarm against all other writers until the end of the
 * transaction and reads its newest version.  Returns TM_Ok, TM_Deleted if the
 * task is gone, or, if the policy is not to wait for them, TM_WouldBlock.
 */
TM_Result
store_lock_alarm(Store *store, int64 id, AlarmRow *row, LockWaitPolicy wait_policy)
{
	TM_Result	result;

	if (!store_get_alarm(store, id, row))
		return TM_Deleted;
	result = store_lock_version(store, row, wait_policy);
	if (result != TM_Ok && result != TM_Deleted && result != TM_WouldBlock)
		elog(ERROR, "unexpected result %d of locking the alarm of task " INT64_FORMAT,
			 (int) result, id);
	return result;
}

/* Remembers where a task's rows are, for somebody who comes back to them. */
void
store_remember(Store *store, const TaskRow *task, const AlarmRow *alarm, RowPlaces *places)
{
	places->known = !compat_snapshots_expire();
	places->task = task->tid;
	places->task_file = store->task->rd_rel->relfilenode;
	places->alarm = alarm->tid;
	places->alarm_file = store->alarm->rd_rel->relfilenode;
}

/*
 * The same as store_lock_alarm for one whose place is known, without looking
 * for it in the index again.  A snapshot that is older than that knowledge must
 * have been kept ever since, so that nobody can have cleared the place and put
 * another row there.
 */
TM_Result
store_relock_alarm(Store *store, int64 id, const RowPlaces *places, AlarmRow *row,
				   LockWaitPolicy wait_policy)
{
	TM_Result	result;

	/* (VACUUM FULL and the like give a table a new file) */
	if (!places->known || places->alarm_file != store->alarm->rd_rel->relfilenode)
		return store_lock_alarm(store, id, row, wait_policy);
	row->tid = places->alarm;
	result = store_lock_version(store, row, wait_policy);

	/* this transaction may have changed it itself, by hand even its id */
	if (result == TM_Deleted || result == TM_WouldBlock ||
		(result == TM_Ok && ROW_GET(Int64, row, alarm_id) == id))
		return result;
	return store_lock_alarm(store, id, row, wait_policy);
}

/*
 * If somebody is about to remove a task, waits for the end of that transaction
 * and returns true.  The task is gone then, or it is not.
 */
bool
store_await_removal(Store *store, int64 id)
{
	SnapshotData dirty;
	ScanKeyData key;
	IndexScanDesc scan;
	TransactionId remover = InvalidTransactionId;
	ItemPointerData tid;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	scan = compat_index_beginscan(store->alarm, store_index(store, ALARM_TASK), &dirty, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (!TransactionIdIsValid(remover) &&
		   index_getnext_slot(scan, BackwardScanDirection, store->alarm_slot))
	{
		bool		should_free;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(store->alarm_slot, false, &should_free);

		/*
		 * a row that is being updated points to its new version, not to
		 * itself
		 */
		if (TransactionIdIsValid(dirty.xmax) &&
			ItemPointerEquals(&tuple->t_self, &tuple->t_data->t_ctid))
		{
			remover = dirty.xmax;
			tid = tuple->t_self;
		}
	}
	index_endscan(scan);
	ExecClearTuple(store->alarm_slot);

	if (!TransactionIdIsValid(remover))
		return false;
	XactLockTableWait(remover, store->alarm, &tid, XLTW_Delete);
	return true;
}

/* The ids of the tasks that an index finds, in its order, as an array of *n. */
static int64 *
store_collect_ids(Store *store, Relation index, ScanKey keys, int nkeys, int *n)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan;
	int			size = 64;
	int64	   *ids = palloc(size * sizeof(int64));

	*n = 0;
	scan = compat_index_beginscan(store->task, index, SnapshotAny, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, store->task_slot))
	{
		bool		isnull;

		if (!store_sees(snapshot, store->task_slot))
			continue;
		if (*n == size)
		{
			size *= 2;
			ids = repalloc_huge(ids, size * sizeof(int64));
		}
		ids[(*n)++] = DatumGetInt64(slot_getattr(store->task_slot, Anum_task_id, &isnull));
	}
	index_endscan(scan);
	ExecClearTuple(store->task_slot);
	UnregisterSnapshot(snapshot);
	return ids;
}

/* The tasks of a group, in the order of their task_ids. */
int64 *
store_find_group(Store *store, Oid owner, Datum group_id, int *n)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, group_id);
	return store_collect_ids(store, store_index(store, TASK_GROUP), keys, 2, n);
}

/* All tasks of an owner, in the order of their task_ids. */
int64 *
store_find_owned(Store *store, Oid owner, int *n)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	return store_collect_ids(store, store_index(store, TASK_KEY), &key, 1, n);
}

/* What a version of a row is to somebody who counts. */
typedef enum VersionState
{
	VERSION_THERE,				/* now, or at some time since the count began */
	VERSION_REMOVED_HERE,		/* by this transaction */
	VERSION_GONE
} VersionState;

static VersionState
store_version_state(TupleTableSlot *slot, Snapshot begun)
{
	BufferHeapTupleTableSlot *place = (BufferHeapTupleTableSlot *) slot;
	HeapTuple	tuple = place->base.tuple;
	VersionState state = VERSION_GONE;
	TransactionId remover;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	LockBuffer(place->buffer, BUFFER_LOCK_SHARE);
	switch (HeapTupleSatisfiesVacuumHorizon(tuple, place->buffer, &remover))
	{
		case HEAPTUPLE_LIVE:
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			state = VERSION_THERE;
			break;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			remover = HeapTupleHeaderGetUpdateXid(tuple->t_data);
			state = TransactionIdIsCurrentTransactionId(remover) ?
				VERSION_REMOVED_HERE : VERSION_THERE;
			break;
		case HEAPTUPLE_RECENTLY_DEAD:
			if (XidInMVCCSnapshot(remover, begun))
				state = VERSION_THERE;
			break;
		case HEAPTUPLE_DEAD:
			break;
	}
	LockBuffer(place->buffer, BUFFER_LOCK_UNLOCK);
	return state;
}

/*
 * How many tasks an owner has, those included that other transactions in
 * progress have added or are about to remove; and, apart from that, how many
 * it has had that this transaction is about to remove.  The sum is what there
 * could be in the end, whatever becomes of all of them.  Counts no further than
 * to one more than limit.
 *
 * Looks at all versions of the rows, and at all that have been there since the
 * count began: a task that is replaced meanwhile may have its new version at a
 * place that the scan has passed.  So it is the task_ids that are counted,
 * which come in order.
 */
int
store_count_owned(Store *store, Oid owner, int limit, int *removed)
{
	Snapshot	begun = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	IndexScanDesc scan;
	text	   *last = NULL;
	bool		last_counted = false;
	int			n = 0;

	*removed = 0;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	scan = compat_index_beginscan(store->task, store_index(store, TASK_KEY), SnapshotAny, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (n <= limit && index_getnext_slot(scan, ForwardScanDirection, store->task_slot))
	{
		bool		there;
		bool		isnull;
		text	   *task_id;

		CHECK_FOR_INTERRUPTS();
		switch (store_version_state(store->task_slot, begun))
		{
			case VERSION_THERE:
				there = true;
				break;
			case VERSION_REMOVED_HERE:
				there = false;
				break;
			default:
				continue;
		}

		task_id = DatumGetTextPCopy(slot_getattr(store->task_slot, Anum_task_task_id, &isnull));
		if (last == NULL || VARSIZE(last) != VARSIZE(task_id) ||
			memcmp(last, task_id, VARSIZE(last)) != 0)
		{
			n += there ? 1 : 0;
			*removed += there ? 0 : 1;
			last_counted = there;
		}
		else if (there && !last_counted)
		{
			/* removed and added again, or replaced */
			n++;
			(*removed)--;
			last_counted = true;
		}
		if (last != NULL)
			pfree(last);
		last = task_id;
	}
	index_endscan(scan);
	ExecClearTuple(store->task_slot);
	UnregisterSnapshot(begun);
	return n;
}

static void
store_fill_slot(TupleTableSlot *slot, const Datum *values, const bool *nulls, int natts)
{
	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
}

/* Inserts a task whose owner and task_id cannot be there already. */
void
store_insert_task(Store *store, TaskRow *row)
{
	store_fill_slot(store->task_slot, row->values, row->nulls, Natts_task);
	writer_insert(store_task_writer(store), store->task_slot);
	ExecClearTuple(store->task_slot);
}

/*
 * Inserts a task unless its owner has one of that task_id, waiting for other
 * transactions that are about to add or remove it.  Returns false if there is
 * one, which may be gone again when the caller looks.
 */
bool
store_try_insert_task(Store *store, TaskRow *row)
{
	bool		inserted;

	store_fill_slot(store->task_slot, row->values, row->nulls, Natts_task);
	inserted = writer_try_insert(store_task_writer(store), store->task_slot,
								 oids.indexes[TASK_KEY]);
	ExecClearTuple(store->task_slot);
	return inserted;
}

/* The caller has the task's alarm locked. */
void
store_update_task(Store *store, TaskRow *row)
{
	store_fill_slot(store->task_slot, row->values, row->nulls, Natts_task);
	writer_update(store_task_writer(store), &row->tid, store->task_slot);
	ExecClearTuple(store->task_slot);
}

/* The caller has the task's alarm locked. */
void
store_delete_task(Store *store, TaskRow *row)
{
	simple_table_tuple_delete(store->task, &row->tid, SnapshotAny);
}

/*
 * Deletes the row of a task at a place where it was seen, under the conditions
 * of store_relock_alarm.  Returns false, and has done nothing, if anybody has
 * changed it since, or is about to: it is then to be looked for.
 */
static bool
store_try_delete_at(Relation rel, TupleTableSlot *slot, AttrNumber id_column, ItemPointerData tid,
					int64 id)
{
	TM_FailureData tmfd;
	bool		isnull;
	bool		same;

	/* (what this transaction has changed itself cannot even be tried) */
	if (!table_tuple_fetch_row_version(rel, &tid, SnapshotSelf, slot))
		return false;
	same = (DatumGetInt64(slot_getattr(slot, id_column, &isnull)) == id);
	ExecClearTuple(slot);
	return same &&
		table_tuple_delete(rel, &tid, GetCurrentCommandId(true), SnapshotAny,
						   InvalidSnapshot, false, &tmfd, false) == TM_Ok;
}

/*
 * Deletes an alarm that is as it was when its place was noted; false if it is
 * not, or that cannot be told.  So it need not be locked first, which would be
 * a change of the row and a WAL record by itself.
 */
bool
store_try_delete_alarm_at(Store *store, int64 id, const RowPlaces *places)
{
	return places->known && places->alarm_file == store->alarm->rd_rel->relfilenode &&
		store_try_delete_at(store->alarm, store->alarm_slot, Anum_alarm_id, places->alarm, id);
}

/* The same as store_delete_task for one whose place may be known, as with store_relock_alarm. */
void
store_delete_task_at(Store *store, int64 id, const RowPlaces *places)
{
	TaskRow		row;

	if (places->known && places->task_file == store->task->rd_rel->relfilenode &&
		store_try_delete_at(store->task, store->task_slot, Anum_task_id, places->task, id))
		return;
	if (store_get_task(store, id, &row))
		store_delete_task(store, &row);
}

void
store_insert_alarm(Store *store, AlarmRow *row)
{
	store_fill_slot(store->alarm_slot, row->values, row->nulls, Natts_alarm);
	writer_insert(store_alarm_writer(store), store->alarm_slot);
	ExecClearTuple(store->alarm_slot);
}

/* The caller has the alarm locked. */
void
store_update_alarm(Store *store, AlarmRow *row)
{
	store_fill_slot(store->alarm_slot, row->values, row->nulls, Natts_alarm);
	writer_update(store_alarm_writer(store), &row->tid, store->alarm_slot);
	ExecClearTuple(store->alarm_slot);
}

/* The caller has the alarm locked. */
void
store_delete_alarm(Store *store, AlarmRow *row)
{
	simple_table_tuple_delete(store->alarm, &row->tid, SnapshotAny);
}
