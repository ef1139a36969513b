/*-------------------------------------------------------------------------
 *
 * history.c
 *		The record of runs: written by workers, kept in bounds by the scheduler.
 *
 * The history is a ring of plain tables, run_0 to run_7, behind the view runs.
 * All workers of a database write to the one that the scheduler has put into
 * its entry in shared memory.  When that table is old or large enough, the
 * scheduler empties the next one and has it used.  So old runs go a table at
 * a time and leave nothing to vacuum.
 *
 * A table is emptied only if its lock is free at once.  Whoever holds it, an
 * analyst in the middle of a long query, say, is not waited for, and nobody
 * queues behind us: the history just grows a while longer.
 *
 * A record is written by direct table access, in the transaction of the run's
 * outcome, like the task's own rows.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "run/run.h"

enum
{
	Anum_run_none,
#define RUN_COLUMN(name, type) Anum_run_##name,
#include "run/run_columns.h"
#undef RUN_COLUMN
	Anum_run_end,
	Natts_run = Anum_run_end - 1
};

enum
{
	Anum_history_began_at = 1,
	Anum_history_part,
	Natts_history = Anum_history_part
};

/* The columns, for table_shape_fits(); those of run_0 and so on are only written. */
static const ColumnShape run_columns[Natts_run] = {
#define RUN_COLUMN(name, type) {#name, type, COLUMN_nullable},
#include "run/run_columns.h"
#undef RUN_COLUMN
};

static const ColumnShape history_columns[Natts_history] = {
	{"began_at", TIMESTAMPTZOID, COLUMN_not_null}, {"part", INT4OID, COLUMN_not_null}
};

/* The part in use and the sequence, as last looked up. */
static Oid	part_relid = InvalidOid;
static Oid	sequence_relid = InvalidOid;
static int	part_number = -1;

/* What writing to it takes. */
static WriterCache part_cache;

/* So many numbers are drawn at a time; the step of the sequence run_seq. */
#define RUN_NUMBERS		64

/*
 * Numbers of runs that this process has drawn and not given to any yet.  It draws some
 * at a time, since a step of the sequence takes longer than all else that is done
 * for a number.  So numbers of different processes do not rise with time.
 */
static struct
{
	Oid			sequence;
	int64		next;
	int64		end;			/* the first that is not ours */
}			numbers;

/* A record that is to be written, with others. */
typedef struct HistoryRecord
{
	Datum		values[Natts_run];
	bool		nulls[Natts_run];
} HistoryRecord;

/* Those of a transaction that several runs share. */
static struct
{
	bool		on;
	int			n;
	HistoryRecord *records[TS_MAX_TASKS_PER_COMMIT];
}			collected;

/* Forget what is known of a relation that has changed, or of all of them. */
void
history_relation_changed(Oid relid)
{
	table_writer_invalidate(&part_cache, relid);
	if (relid == InvalidOid || relid == part_relid || relid == sequence_relid)
		part_relid = sequence_relid = InvalidOid;
}

/* Return a part; InvalidOid if it is not there, or somebody has altered it. */
static Oid
history_part_relid(int part)
{
	Oid			relid = store_relid(psprintf("run_%d", part));

	return store_is_member(relid) && table_shape_fits(relid, Natts_run, run_columns) ?
		relid : InvalidOid;
}

/* Return whether a run of this status is to be recorded. */
static bool
history_wants(HistoryMode mode, RunStatus status)
{
	return mode == HISTORY_ALL || (mode == HISTORY_ERRORS && status != RUN_SUCCEEDED);
}

static Datum
history_text(const char *string)
{
	return PointerGetDatum(cstring_to_text_with_len(string,
													pg_mbcliplen(string, strlen(string),
																 ts_history_max_text)));
}

static void
history_set_text(Datum *values, bool *nulls, int attnum, const char *string)
{
	nulls[attnum - 1] = (string == NULL);
	if (string != NULL)
		values[attnum - 1] = history_text(string);
}

/* Return a number for a run. */
static int64
history_number(Oid sequence)
{
	if (numbers.sequence != sequence || numbers.next == numbers.end)
	{
		numbers.next = nextval_internal(sequence, false);
		numbers.end = numbers.next + RUN_NUMBERS;
		numbers.sequence = sequence;
	}
	return numbers.next++;
}

/*
 * Open the part in use for writing, and say where numbers come from.  Return NULL if
 * there is none: the extension is being dropped.
 */
static Relation
history_open(Oid *sequence)
{
	TsDatabase *db = database_find(MyDatabaseId);
	int			part;

	if (db == NULL)
		return NULL;
	SpinLockAcquire(&db->mutex);
	part = db->history_part;
	SpinLockRelease(&db->mutex);
	if (!OidIsValid(part_relid) || part != part_number)
	{
		part_relid = history_part_relid(part);
		sequence_relid = store_relid("run_seq");
		part_number = part;
	}
	/* (opening the table can have the two forgotten, though they are there) */
	*sequence = sequence_relid;
	return OidIsValid(sequence_relid) && OidIsValid(part_relid) ?
		try_table_open(part_relid, RowExclusiveLock) : NULL;
}

/* Fill in a record, but for its number. */
static void
history_fill(const RunEnd *run, Datum *values, bool *nulls)
{
	const RunStart *start = run->start;
	const ErrorData *error = run->error;

	memset(values, 0, Natts_run * sizeof(Datum));
	memset(nulls, false, Natts_run * sizeof(bool));
	values[Anum_run_scheduled_at - 1] = TimestampTzGetDatum(start->scheduled_at);
	values[Anum_run_started_at - 1] = TimestampTzGetDatum(start->started_at);
	nulls[Anum_run_started_at - 1] = (run->status == RUN_MISSED || run->status == RUN_SKIPPED ||
									  run->unstarted);
	values[Anum_run_finished_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_run_owner - 1] = ObjectIdGetDatum(start->owner);
	values[Anum_run_attempt - 1] = Int32GetDatum(start->attempt);
	values[Anum_run_worker_pid - 1] = Int32GetDatum(start->worker_pid);
	nulls[Anum_run_worker_pid - 1] = (start->worker_pid == 0);
	values[Anum_run_status - 1] = CStringGetTextDatum(word_text(run_status_words, run->status));
	values[Anum_run_task_id - 1] = CStringGetTextDatum(start->task_id);
	nulls[Anum_run_group_id - 1] = (start->group_id == NULL);
	if (start->group_id != NULL)
		values[Anum_run_group_id - 1] = CStringGetTextDatum(start->group_id);
	values[Anum_run_callback - 1] = CStringGetTextDatum(start->callback);
	values[Anum_run_by_hand - 1] = BoolGetDatum(true);
	nulls[Anum_run_by_hand - 1] = !start->by_hand;
	history_set_text(values, nulls, Anum_run_result, run->result);
	history_set_text(values, nulls, Anum_run_sqlstate,
					 error != NULL ? unpack_sql_state(error->sqlerrcode) : NULL);
	history_set_text(values, nulls, Anum_run_message, error != NULL ? error->message : NULL);
	history_set_text(values, nulls, Anum_run_detail, error != NULL ? error->detail : NULL);
	history_set_text(values, nulls, Anum_run_hint, error != NULL ? error->hint : NULL);
	history_set_text(values, nulls, Anum_run_context, error != NULL ? error->context : NULL);
}

/* Write some records, in the transaction of the runs' outcomes. */
static void
history_insert(HistoryRecord **records, int n)
{
	TupleTableSlot *slots[TS_MAX_TASKS_PER_COMMIT];
	Oid			sequence;
	Relation	rel = history_open(&sequence);
	Writer	   *writer;

	if (rel == NULL)
		return;
	for (int i = 0; i < n; i++)
	{
		slots[i] = table_slot_create(rel, NULL);
		records[i]->values[Anum_run_run_id - 1] = Int64GetDatum(history_number(sequence));
		memcpy(slots[i]->tts_values, records[i]->values, sizeof(records[i]->values));
		memcpy(slots[i]->tts_isnull, records[i]->nulls, sizeof(records[i]->nulls));
		ExecStoreVirtualTuple(slots[i]);
	}
	writer = table_writer_open(&part_cache, rel);
	if (n == 1)
		table_writer_insert(writer, slots[0]);
	else
		table_writer_insert_many(writer, slots, n);
	for (int i = 0; i < n; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	table_writer_close(writer);
	table_close(rel, NoLock);
}

/*
 * Record a run that has ended, or a time that was missed.  The caller is in the
 * transaction of the run's outcome.  Between history_collect and history_write it is
 * recorded with the others then, and the current memory context must last so long.
 * Return the run's number, as far as it has one by now; else 0.
 */
int64
history_record(const RunEnd *run)
{
	HistoryRecord *record;

	if (!history_wants(run->start->history, run->status))
		return 0;
	record = palloc(sizeof(HistoryRecord));
	history_fill(run, record->values, record->nulls);
	if (!collected.on)
	{
		history_insert(&record, 1);
		return DatumGetInt64(record->values[Anum_run_run_id - 1]);
	}
	Assert(collected.n < lengthof(collected.records));
	collected.records[collected.n++] = record;
	return 0;
}

/* Keep what is recorded from here on, a record for each run, to be written with one call. */
void
history_collect(void)
{
	collected.on = true;
	collected.n = 0;
}

/* Write what was kept. */
void
history_write(void)
{
	collected.on = false;
	if (collected.n > 0)
		history_insert(collected.records, collected.n);
}

/* Forget what was kept: the transaction is rolled back. */
void
history_discard(void)
{
	collected.on = false;
}

/*
 * Read since when each part has been in use: 0 for those that never were, and for
 * what somebody has written by hand that cannot be true.  A part that is said to be
 * from the future would be taken for the latest for ever.
 */
static void
history_read_parts(Relation rel, TimestampTz *began_at)
{
	TimestampTz limit = GetCurrentTimestamp() + USECS_PER_DAY;
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tuple;

	memset(began_at, 0, TS_HISTORY_PARTS * sizeof(TimestampTz));
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		nulls[2];
		int			part = DatumGetInt32(heap_getattr(tuple, Anum_history_part,
													  RelationGetDescr(rel), &nulls[0]));
		TimestampTz at = DatumGetTimestampTz(heap_getattr(tuple, Anum_history_began_at,
														  RelationGetDescr(rel), &nulls[1]));

		if (!nulls[0] && !nulls[1] && part >= 0 && part < TS_HISTORY_PARTS && at < limit)
			began_at[part] = Max(at, 0);
	}
	table_endscan(scan);
}

/* Write down that a part is in use from now on. */
static void
history_write_part(Relation rel, int part, TimestampTz now)
{
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	Datum		values[Natts_history];
	bool		nulls[Natts_history] = {false};
	HeapTuple	tuple;
	HeapTuple	new;
	bool		found = false;

	values[Anum_history_began_at - 1] = TimestampTzGetDatum(now);
	values[Anum_history_part - 1] = Int32GetDatum(part);
	new = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	while (!found && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;

		if (DatumGetInt32(heap_getattr(tuple, Anum_history_part, RelationGetDescr(rel),
									   &isnull)) == part)
		{
			CatalogTupleUpdate(rel, &tuple->t_self, new);
			found = true;
		}
	}
	table_endscan(scan);
	if (!found)
		CatalogTupleInsert(rel, new);
}

/* What a table takes up on disk, in blocks: itself, its indexes, its toast table. */
typedef struct HistorySpace
{
	uint64		rows;			/* of this, the rows' */
	uint64		total;
	bool		blank;			/* it is as it was made */
} HistorySpace;

/* Return what a table takes up. */
static HistorySpace
history_space(Relation rel)
{
	HistorySpace space = {0};
	Oid			toast = rel->rd_rel->reltoastrelid;
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	space.rows = space.total = RelationGetNumberOfBlocks(rel);
	space.blank = (space.rows == 0);
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		BlockNumber blocks = RelationGetNumberOfBlocks(index);

		/* a btree without entries has one block */
		space.total += blocks;
		space.blank = space.blank && blocks == 1;
		index_close(index, AccessShareLock);
	}
	if (OidIsValid(toast))
	{
		Relation	toast_rel = table_open(toast, AccessShareLock);
		HistorySpace toast_space = history_space(toast_rel);

		space.total += toast_space.total;
		space.blank = space.blank && toast_space.blank;
		table_close(toast_rel, AccessShareLock);
	}
	return space;
}

/* Return the space of a part; none if it is not there. */
static HistorySpace
history_part_space(int part)
{
	HistorySpace space = {0};
	Oid			relid = history_part_relid(part);
	Relation	rel = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;

	if (rel != NULL)
	{
		space = history_space(rel);
		table_close(rel, AccessShareLock);
	}
	return space;
}

/* Return a part's size on disk. */
static uint64
history_part_size(int part)
{
	return history_part_space(part).total * BLCKSZ;
}

/*
 * Return whether the emptying of a part was cut off, by a crash or because there was
 * no space for the new index.  It is not undone by a rollback.  Then the rows are gone,
 * but the indexes still have them, or not even their first block, and who uses
 * them gets an error.
 */
static bool
history_is_torn(int part)
{
	HistorySpace space = history_part_space(part);

	return space.rows == 0 && space.total > 0 && !space.blank;
}

/* Empty a part if nobody is using it.  Return whether it is empty now. */
static bool
history_empty_part(int part)
{
	Oid			relid = history_part_relid(part);
	Relation	rel;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	rel = try_table_open(relid, NoLock);
	if (rel == NULL)
		return false;
	if (!history_space(rel).blank)
		heap_truncate_one_rel(rel);
	table_close(rel, NoLock);	/* the lock stays until the end */
	return true;
}

/* Tell the workers of db which part to write to. */
static void
history_use_part(TsDatabase *db, int part)
{
	SpinLockAcquire(&db->mutex);
	db->history_part = part;
	SpinLockRelease(&db->mutex);
}

/*
 * Lock what looking after the history locks first, as DROP EXTENSION will.  Call it
 * after store_lock_for_drop.
 */
void
history_lock_for_drop(void)
{
	Oid			relid = store_relid("history");

	if (OidIsValid(relid))
		LockRelationOid(relid, AccessExclusiveLock);
}

/*
 * Keep the history within its bounds and tell the workers of db which part to write
 * to.  The scheduler calls this in a transaction of its own, at its start and every
 * now and then.
 */
void
history_maintain(TsDatabase *db)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		retention = (int64) ts_history_retention * USECS_PER_MINUTE;
	uint64		total_limit = (uint64) ts_history_max_size * 1024 * 1024;
	uint64		part_limit = total_limit / TS_HISTORY_PARTS;
	uint64		total = 0;
	Oid			relid = store_relid("history");
	Relation	rel = store_is_member(relid) && table_shape_fits(relid, Natts_history, history_columns) ?
	try_table_open(relid, RowExclusiveLock) : NULL;
	TimestampTz began_at[TS_HISTORY_PARTS];
	int			current = 0;
	int			next;

	if (rel == NULL)
		return;

	/* the part in use is the one that was begun last */
	history_read_parts(rel, began_at);
	for (int i = 1; i < TS_HISTORY_PARTS; i++)
	{
		if (began_at[i] > began_at[current])
			current = i;
	}
	history_use_part(db, current);	/* even if what follows should fail */

	/* a part's runs are all too old when the one after it is */
	for (int i = 1; i < TS_HISTORY_PARTS; i++)
	{
		int			part = (current + i) % TS_HISTORY_PARTS;
		TimestampTz ended_at = began_at[(part + 1) % TS_HISTORY_PARTS];

		if (history_is_torn(part) ||
			(began_at[part] != 0 && ended_at != 0 && now - ended_at > retention &&
			 !history_part_space(part).blank))
			(void) history_empty_part(part);
	}

	/* the limit may have been lowered: the oldest go first */
	for (int i = 0; i < TS_HISTORY_PARTS; i++)
		total += history_part_size(i);
	for (int i = 1; i < TS_HISTORY_PARTS && total > total_limit; i++)
	{
		int			part = (current + i) % TS_HISTORY_PARTS;
		uint64		size = history_part_size(part);

		if (size > 0 && history_empty_part(part))
			total -= size;
	}

	/* go on to the next part when this one is old or large enough */
	next = (current + 1) % TS_HISTORY_PARTS;
	if ((now - began_at[current] > retention / (TS_HISTORY_PARTS - 1) ||
		 history_part_size(current) > part_limit) &&
		history_empty_part(next))
	{
		history_write_part(rel, next, now);
		history_use_part(db, next);
	}
	table_close(rel, NoLock);
}
