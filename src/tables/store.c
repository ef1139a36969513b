/*-------------------------------------------------------------------------
 *
 * store.c
 *		The tables _taskshed.task, alarm, edge and request: what they are, and opening
 *		them.
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
 * store_find.c reads them, store_write.c locks and writes them.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
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

#include "tables/tables.h"

/* The names of the indexes. */
static const char *const store_index_names[STORE_NINDEXES] = {
	"task_pkey",
	"task_key",
	"task_group",
	"alarm_queue",
	"alarm_task",
	"alarm_failed",
	"edge_pkey",
	"edge_parent",
	"request_number"
};

/* Their keys. */
static const IndexShape store_index_shapes[STORE_NINDEXES] = {
	[TASK_PKEY] = {true, 1, {Anum_task_id}},
	[TASK_KEY] = {true, 2, {Anum_task_owner, Anum_task_task_id}},
	[TASK_GROUP] = {false, 3, {Anum_task_owner, Anum_task_group_id, Anum_task_task_id}},
	[ALARM_QUEUE] = {false, 3, {Anum_alarm_owner, Anum_alarm_run_at, Anum_alarm_id}},
	[ALARM_TASK] = {false, 2, {Anum_alarm_id, Anum_alarm_run_at}},
	[ALARM_FAILED] = {false, 1, {Anum_alarm_failed_at}},
	[EDGE_PKEY] = {true, 2, {Anum_edge_child, Anum_edge_parent}},
	[EDGE_PARENT] = {false, 2, {Anum_edge_parent, Anum_edge_child}},
	[REQUEST_NUMBER] = {false, 1, {Anum_request_number}}
};

/* The tables' columns. */
static const ColumnShape task_columns[Natts_task] = {
#define TASK_COLUMN(name, type, nulls) {#name, type, COLUMN_##nulls},
#include "tables/task_columns.h"
#undef TASK_COLUMN
};

static const ColumnShape alarm_columns[Natts_alarm] = {
#define ALARM_COLUMN(name, type, nulls) {#name, type, COLUMN_##nulls},
#include "tables/alarm_columns.h"
#undef ALARM_COLUMN
};

static const ColumnShape edge_columns[Natts_edge] = {
#define EDGE_COLUMN(name, type, nulls) {#name, type, COLUMN_##nulls},
#include "tables/edge_columns.h"
#undef EDGE_COLUMN
};

static const ColumnShape request_columns[Natts_request] = {
	{"number", INT8OID, COLUMN_not_null}, {"id", INT8OID, COLUMN_not_null}
};

static const ColumnShape home_columns[Natts_home] = {
	{"database", OIDOID, COLUMN_not_null}, {"restored", BOOLOID, COLUMN_not_null}
};

/* OIDs of our relations in this database; valid if the flag says so. */
static struct
{
	bool		valid;
	StoreState	state;			/* as last found, if not valid */
	char		version[64];	/* of the extension, as last found */
	Oid			task;
	Oid			alarm;
	Oid			edge;
	Oid			request;
	Oid			sequence;
	Oid			home;
	Oid			indexes[STORE_NINDEXES];
}			oids;

/* What writing to the tables takes. */
static WriterCache task_cache;
static WriterCache alarm_cache;
static WriterCache edge_cache;
static WriterCache request_cache;

/*
 * Look at the tables again if a relation, or any, has changed, as the relcache
 * has been told.
 */
void
store_relation_changed(Oid relid)
{
	table_writer_invalidate(&task_cache, relid);
	table_writer_invalidate(&alarm_cache, relid);
	table_writer_invalidate(&edge_cache, relid);
	table_writer_invalidate(&request_cache, relid);
	if (relid == InvalidOid || relid == oids.task || relid == oids.alarm ||
		relid == oids.edge || relid == oids.request || relid == oids.sequence ||
		relid == oids.home)
		oids.valid = false;
}

/* Return the schema that our tables are in; InvalidOid if there is none of that name. */
Oid
store_schema(void)
{
	return get_namespace_oid("_taskshed", true);
}

/* Return what has the name of a relation of ours; InvalidOid if there is none. */
Oid
store_relid(const char *name)
{
	Oid			schema = store_schema();

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

/*
 * Return whether a relation is ours.  Its name is not enough: where the extension is
 * not installed, or its schema was renamed, anybody who may create a schema could
 * make tables of our names, and have what is in them run as whatever role they say.
 * A member of the extension is what CREATE EXTENSION has made, and only superusers
 * can run that.
 */
bool
store_is_member(Oid relid)
{
	Oid			extension = get_extension_oid("taskshed", true);

	return OidIsValid(extension) && OidIsValid(relid) &&
		getExtensionOfObject(RelationRelationId, relid) == extension;
}

/*
 * Tell everybody, at this transaction's commit, to look which version the
 * extension has, since a command may have changed it.  pg_extension has no
 * cache, so nothing would tell other sessions that what they have found out is
 * out of date when this commits.
 */
void
store_extension_changed(void)
{
	Oid			relid = store_relid("task");

	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

/* Return the version of the extension in this database, NULL if it is not there. */
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

/* Return whether our tables are there, of our version and as they were made. */
bool
store_exists(void)
{
	char	   *version;
	bool		altered;

	if (oids.valid)
		return true;

	do
	{
		CHECK_FOR_INTERRUPTS();
		oids.state = STORE_ABSENT;
		if (!OidIsValid(get_extension_oid("taskshed", true)))
			return false;

		/* what changes while we look must be able to reset this */
		oids.valid = true;
		oids.task = store_relid("task");
		oids.alarm = store_relid("alarm");
		oids.edge = store_relid("edge");
		oids.request = store_relid("request");
		oids.sequence = store_relid("task_seq");
		oids.home = store_relid("home");
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
		altered = (!store_is_member(oids.task) || !store_is_member(oids.alarm) ||
				   !store_is_member(oids.edge) || !store_is_member(oids.request) ||
				   !store_is_member(oids.home) ||
				   !table_shape_fits(oids.task, Natts_task, task_columns) ||
				   !table_shape_fits(oids.alarm, Natts_alarm, alarm_columns) ||
				   !table_shape_fits(oids.edge, Natts_edge, edge_columns) ||
				   !table_shape_fits(oids.request, Natts_request, request_columns) ||
				   !table_shape_fits(oids.home, Natts_home, home_columns) ||
				   get_rel_relkind(oids.sequence) != RELKIND_SEQUENCE);
		for (int i = 0; i < STORE_NINDEXES; i++)
		{
			oids.indexes[i] = store_relid(store_index_names[i]);
			altered = altered ||
				!table_shape_index_fits(oids.indexes[i], i <= TASK_GROUP ? oids.task :
										i <= ALARM_FAILED ? oids.alarm :
										i <= EDGE_PARENT ? oids.edge : oids.request,
										&store_index_shapes[i]);
		}
	} while (!oids.valid);		/* look once more, then */

	oids.state = altered ? STORE_ALTERED : STORE_FINE;
	oids.valid = !altered;
	return oids.valid;
}

/* Return what the last look has found. */
StoreState
store_state(void)
{
	return oids.valid ? STORE_FINE : oids.state;
}

/*
 * Return whether the library's version is an earlier one than the extension's,
 * as last found.
 */
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

/* Say which versions the library and the extension were found to be. */
char *
store_version_mismatch(void)
{
	return psprintf("taskshed library is version %s but extension is version %s in this database",
					TASKSHED_VERSION, oids.version);
}

/* Say why there are no tables to work with. */
void
store_report(int elevel, StoreState state)
{
	switch (state)
	{
		case STORE_ALTERED:
			ereport(elevel,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("tables of extension \"taskshed\" are not as it has made them"),
					 errhint("Undo what was changed in schema _taskshed, or drop the extension and create it again.")));
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
 * Refuse to work for another version of the extension: 55000.  For functions
 * that do more than open the tables.
 */
void
store_require_version(void)
{
	if (!store_exists() && store_state() == STORE_OTHER_VERSION)
		store_report(ERROR, STORE_OTHER_VERSION);
}

/*
 * Open both tables with a lock of that strength, or return NULL if they are not
 * there.  The caller is in a transaction with an active snapshot.
 *
 * Who had to wait for the lock may find the tables dropped, and others in
 * their place, if the extension was created again in the same transaction.
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
	store->lockmode = lockmode;
	store->task = task;
	store->alarm = alarm;
	store->task_slot = table_slot_create(store->task, NULL);
	store->alarm_slot = table_slot_create(store->alarm, NULL);
	return store;
}

/*
 * Lock the tables as DROP EXTENSION will, and an update may, in the order in
 * which our processes open them: the first is the one whose lock they have or
 * wait for whenever they have any other, but for the history's.
 */
void
store_lock_for_drop(void)
{
	if (!store_exists())
		return;
	LockRelationOid(oids.task, AccessExclusiveLock);
	LockRelationOid(oids.alarm, AccessExclusiveLock);
	LockRelationOid(oids.edge, AccessExclusiveLock);
	LockRelationOid(oids.request, AccessExclusiveLock);
}

/*
 * Open both tables as store_try_open does, for those who need them: 55000 if
 * they are not there.
 */
Store *
store_open(LOCKMODE lockmode)
{
	Store	   *store = store_try_open(lockmode);

	store_require(store != NULL);
	return store;
}

/*
 * Return the table of edges, opened when it is first asked for.  Its lock is taken behind
 * those of the other two.
 */
Relation
store_edge(Store *store)
{
	if (store->edge == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(store));

		store_require(store_exists());
		store->edge = table_open(oids.edge, store->lockmode);
		store->edge_slot = table_slot_create(store->edge, NULL);
		MemoryContextSwitchTo(old);
	}
	return store->edge;
}

/* The same for the table of requests, which whoever asks for it writes. */
Relation
store_request(Store *store)
{
	if (store->request == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(store));

		store_require(store_exists());
		store->request = table_open(oids.request, RowExclusiveLock);
		store->request_slot = table_slot_create(store->request, NULL);
		MemoryContextSwitchTo(old);
	}
	return store->request;
}

/* Close the tables; the locks go too if lockmode is not NoLock. */
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
		table_writer_close(store->task_writer);
	if (store->alarm_writer != NULL)
		table_writer_close(store->alarm_writer);
	if (store->edge_writer != NULL)
		table_writer_close(store->edge_writer);
	if (store->request_writer != NULL)
		table_writer_close(store->request_writer);
	if (store->edge != NULL)
	{
		ExecDropSingleTupleTableSlot(store->edge_slot);
		table_close(store->edge, lockmode);
	}
	if (store->request != NULL)
	{
		ExecDropSingleTupleTableSlot(store->request_slot);
		table_close(store->request, lockmode == NoLock ? NoLock : RowExclusiveLock);
	}
	table_close(store->task, lockmode);
	table_close(store->alarm, lockmode);
	pfree(store);
}

/* Return an index for reading, opened when it is first asked for. */
Relation
store_index(Store *store, StoreIndex which)
{
	if (store->indexes[which] == NULL)
	{
		store_require(store_exists());
		store->indexes[which] = index_open(oids.indexes[which], AccessShareLock);
	}
	return store->indexes[which];
}

/* Return the OID of an index that the tables' writers have open. */
Oid
store_index_relid(StoreIndex which)
{
	store_require(store_exists());
	return oids.indexes[which];
}

/*
 * Return a table open for writing, from when that is first asked for until the
 * Store is closed.
 */
static Writer *
store_writer(Store *store, Writer **writer, WriterCache *cache, Relation rel)
{
	if (*writer == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(store));

		*writer = table_writer_open(cache, rel);
		MemoryContextSwitchTo(old);
	}
	return *writer;
}

Writer *
store_task_writer(Store *store)
{
	return store_writer(store, &store->task_writer, &task_cache, store->task);
}

Writer *
store_alarm_writer(Store *store)
{
	return store_writer(store, &store->alarm_writer, &alarm_cache, store->alarm);
}

Writer *
store_edge_writer(Store *store)
{
	return store_writer(store, &store->edge_writer, &edge_cache, store_edge(store));
}

Writer *
store_request_writer(Store *store)
{
	return store_writer(store, &store->request_writer, &request_cache, store_request(store));
}

/* Return the table that says where the tasks are at home; see copies.c. */
Oid
store_home_relid(void)
{
	store_require(store_exists());
	return oids.home;
}

/* Return a new internal id.  Needs no privilege on the sequence. */
int64
store_new_id(void)
{
	store_require(store_exists());
	return nextval_internal(oids.sequence, false);
}
