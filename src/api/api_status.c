/*-------------------------------------------------------------------------
 *
 * api_status.c
 *		What the views status and tasks ask of our processes, and next_wakeup.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "api/api.h"

/* So many tasks are read from a queue at once to be counted. */
#define COUNT_BATCH		256

/* Return whether the current user may see the tasks of that role, and that they run. */
static bool
read_may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), role) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

PG_FUNCTION_INFO_V1(ts_next_wakeup);
Datum
ts_next_wakeup(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot = GetActiveSnapshot();
	Store	   *store;
	Oid			owner = InvalidOid;
	TimestampTz earliest = DT_NOEND;

	ts_require_preload();
	store = store_open(AccessShareLock);
	while (OidIsValid(owner = queue_next_owner(store, snapshot, owner)))
	{
		QueueKey	start = {DT_NOBEGIN, PG_INT64_MIN};
		QueueEntry	first;

		if (read_may_see(owner) &&
			queue_read(store, snapshot, owner, &start, &first, 1) > 0)
			earliest = Min(earliest, first.key.run_at);
	}
	store_close(store, AccessShareLock);
	if (earliest == DT_NOEND)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(earliest);
}

PG_FUNCTION_INFO_V1(ts_running);
Datum
ts_running(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (ts_shared == NULL)
		return (Datum) 0;
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		SlotView	view;
		TsMember	runs[TS_MAX_TASKS_PER_COMMIT];
		int			nruns = slot_look_runs(i, &view, runs);

		/* what is done and not committed is still running, to all others */
		if (view.state != TS_WORKER_READY || view.database != MyDatabaseId ||
			!read_may_see(view.role))
			continue;
		for (int j = 0; j < nruns; j++)
		{
			Datum		values[3] = {
				Int64GetDatum(runs[j].id),
				TimestampTzGetDatum(runs[j].since),
				Int32GetDatum(view.pid)
			};
			bool		nulls[3] = {false, false, false};

			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}

/*
 * Count the workers of a database, and those of them that are running a task,
 * of those whose runs the current user may see.
 */
static void
read_count_workers(Oid database, int *workers, int *running)
{
	*workers = *running = 0;
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		SlotView	view;

		slot_look(i, &view);
		if (view.state == TS_WORKER_READY && view.database == database && read_may_see(view.role))
		{
			(*workers)++;
			*running += (view.running_id != 0);
		}
	}
}

/* What the view status says about the tasks that the current user may see. */
typedef struct TaskCounts
{
	int			due;
	TimestampTz oldest_due;		/* DT_NOEND if none */
	TimestampTz next;			/* earliest that is not due; DT_NOEND if none */
	int			failed;
} TaskCounts;

/* Add what is waiting in one owner's queue, as far as it is due. */
static void
read_count_queue(Store *store, Snapshot snapshot, Oid owner, TimestampTz now, TaskCounts *counts)
{
	QueueEntry	entries[COUNT_BATCH];
	QueueKey	place = {DT_NOBEGIN, PG_INT64_MIN};
	int			n;

	do
	{
		CHECK_FOR_INTERRUPTS();
		n = queue_read(store, snapshot, owner, &place, entries, COUNT_BATCH);
		for (int i = 0; i < n; i++)
		{
			const QueueKey *key = &entries[i].key;

			if (key->run_at > now)
			{
				counts->next = Min(counts->next, key->run_at);
				return;
			}
			if (slot_is_running(key->id))
				continue;
			counts->due++;
			counts->oldest_due = Min(counts->oldest_due, key->run_at);
		}
		if (n > 0)
			place = entries[n - 1].key;
	} while (n == COUNT_BATCH);
}

/*
 * Count the tasks of this database that the current user may see: those that
 * have failed, and those that wait if that is asked for.  The queues of others
 * are not read.  Return false if our tables are not there.
 */
static bool
read_count_tasks(bool waiting, TaskCounts *counts)
{
	Snapshot	snapshot = GetActiveSnapshot();
	Store	   *store = store_try_open(AccessShareLock);
	Oid			owner = InvalidOid;

	if (store == NULL)
		return false;
	counts->due = 0;
	counts->oldest_due = counts->next = DT_NOEND;
	while (waiting && OidIsValid(owner = queue_next_owner(store, snapshot, owner)))
	{
		if (read_may_see(owner))
			read_count_queue(store, snapshot, owner, GetCurrentTimestamp(), counts);
	}
	counts->failed = (int) queue_count_failed(store, snapshot, read_may_see);
	store_close(store, AccessShareLock);
	return true;
}

#define STATUS_COLUMNS	13

/* Return whether the tasks of this database are held, since they came with a copy. */
static bool
read_is_held(void)
{
	Store	   *store;
	bool		held;

	if (copies_is_settled())
		return false;
	store = store_try_open(AccessShareLock);
	if (store == NULL)
		return false;
	held = home_is_held(copies_state(store, NULL));
	store_close(store, AccessShareLock);
	return held;
}

PG_FUNCTION_INFO_V1(ts_held);
Datum
ts_held(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(read_is_held());
}

/*
 * Put the row of this database where no scheduler can ever be.  Why that is, is
 * told to everybody.  Without shared memory nothing keeps what we know of the
 * tables up to date, so they are not read.
 */
static void
read_put_unserved(ReturnSetInfo *rsinfo, bool sees_all)
{
	const char *state;
	const char *message;
	TaskCounts	tasks;
	bool		has_tasks;
	Datum		values[STATUS_COLUMNS] = {0};
	bool		nulls[STATUS_COLUMNS];

	if (ts_shared == NULL)
	{
		state = "not loaded";
		message = "taskshed is not in shared_preload_libraries, so tasks wait";
	}
	else if (RecoveryInProgress())
	{
		state = "standby";
		message = "the server is a standby, whose primary runs the tasks";
	}
	else if (check_is_template())
	{
		state = "template";
		message = "the database is a template, so tasks wait";
	}
	else
		return;

	memset(nulls, true, sizeof(nulls));
	values[0] = ObjectIdGetDatum(MyDatabaseId);
	values[1] = CStringGetTextDatum(state);
	values[3] = values[4] = Int32GetDatum(0);
	nulls[0] = nulls[1] = nulls[3] = nulls[4] = false;
	has_tasks = (ts_shared != NULL && read_count_tasks(true, &tasks));
	if (has_tasks)
	{
		values[5] = Int32GetDatum(tasks.due);
		values[6] = TimestampTzGetDatum(tasks.oldest_due);
		values[7] = Int32GetDatum(tasks.failed);
		nulls[5] = nulls[7] = false;
		nulls[6] = (tasks.oldest_due == DT_NOEND);
	}
	values[9] = values[10] = Int64GetDatum(0);
	nulls[9] = nulls[10] = !sees_all;
	values[12] = CStringGetTextDatum(message);
	nulls[12] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * Whether a database's scheduler works is everybody's business; the rest is
 * about the tasks that the current user may see.  What is only known of all of
 * them together is for those who may see all.
 */
PG_FUNCTION_INFO_V1(ts_status);
Datum
ts_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	bool		served = false;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; ts_shared != NULL && i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		TsDatabaseState state;
		Oid			oid;
		int			scheduler_pid;
		bool		disabled;
		bool		held;
		bool		stopped;
		TimestampTz next_wakeup;
		TaskCounts	tasks;
		bool		has_tasks = true;
		TsCounts	counts;
		char		message[sizeof(db->message)];
		int			workers;
		int			running;
		Datum		values[STATUS_COLUMNS];
		bool		nulls[STATUS_COLUMNS];

		SpinLockAcquire(&db->mutex);
		state = db->state;
		oid = db->oid;
		scheduler_pid = db->scheduler_pid;
		disabled = db->disabled;
		held = db->held;
		stopped = db->stopped;
		tasks.due = db->due;
		tasks.oldest_due = db->oldest_due;
		next_wakeup = db->next_wakeup;
		tasks.failed = (int) db->failed;
		counts = db->counts;
		memcpy(message, db->message, sizeof(message));
		SpinLockRelease(&db->mutex);

		if (state == TS_DB_FREE || (state == TS_DB_IDLE && !stopped) || (oid != MyDatabaseId && !sees_all))
			continue;

		/* a scheduler that does not work knows nothing of what is due */
		if (oid == MyDatabaseId)
		{
			bool		active;
			bool		waiting;
			TaskCounts	own;

			served = true;
			held = read_is_held();	/* it may not have looked yet */
			active = ((state == TS_DB_RUNNING || state == TS_DB_ASLEEP) && !disabled && !held);
			waiting = (!sees_all || !active);

			if (read_count_tasks(waiting, &own))
			{
				tasks.failed = own.failed;
				if (waiting)
					tasks = own;
			}
			else
				has_tasks = false;
			if (!sees_all)
				next_wakeup = active && has_tasks ? own.next : DT_NOEND;
		}

		read_count_workers(oid, &workers, &running);
		memset(nulls, false, sizeof(nulls));
		values[0] = ObjectIdGetDatum(oid);
		values[1] = CStringGetTextDatum(state == TS_DB_IDLE ? "stopped" :
										state != TS_DB_RUNNING && state != TS_DB_ASLEEP ? "starting" :
										disabled ? "disabled" : held ? "held" :
										state == TS_DB_ASLEEP ? "asleep" : "active");
		values[2] = Int32GetDatum(scheduler_pid);
		nulls[2] = (scheduler_pid == 0);
		values[3] = Int32GetDatum(workers);
		values[4] = Int32GetDatum(running);
		values[5] = Int32GetDatum(tasks.due);
		nulls[5] = !has_tasks;
		values[6] = TimestampTzGetDatum(tasks.oldest_due);
		nulls[6] = (!has_tasks || tasks.oldest_due == DT_NOEND);
		values[7] = Int32GetDatum(tasks.failed);
		nulls[7] = !has_tasks;
		values[8] = TimestampTzGetDatum(next_wakeup);
		nulls[8] = (next_wakeup == DT_NOEND);
		values[9] = Int64GetDatum(counts.runs_ok);
		values[10] = Int64GetDatum(counts.runs_failed);
		nulls[9] = nulls[10] = !sees_all;
		values[11] = TimestampTzGetDatum(counts.last_failure_at);
		nulls[11] = (!sees_all || counts.last_failure_at == 0);
		values[12] = CStringGetTextDatum(message);
		nulls[12] = (!sees_all || message[0] == '\0');
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	if (!served)
		read_put_unserved(rsinfo, sees_all);
	return (Datum) 0;
}
