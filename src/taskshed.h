/*-------------------------------------------------------------------------
 *
 * taskshed.h
 *		Everything the files of taskshed share, a section for each.
 *
 * The rooms of the house, from the cellar up; a file uses only those listed
 * before it:
 *
 *		shared.c		shared memory: databases and worker slots
 *		shortage.c		whether a process has ended for want of something
 *		crash_record.c		what was running when the server died
 *		prepared.c		what prepared transactions have to tell at their commit
 *		notes.c			what a transaction scheduled, told at its commit
 *		cancel.c		which runs a transaction cancels, told at its commit
 *		changed_settings.c		noticing that settings have changed
 *		database_hold.c			keeping our processes out of a database
 *		roles.c			whether tasks of a role may run
 *		table_shape.c			whether a table is as our script has made it
 *		table_writer.c		writing rows with all their index entries
 *		store.c			the tables task and alarm, by direct access
 *		store_find.c	reading their rows
 *		store_write.c	locking and writing them
 *		copies.c			whether the tasks of a database may run in it
 *		replicated.c	our tables when a subscription truncates them
 *		max_tasks.c			how many tasks a role may have
 *		late_from.c		from when it counts how late a task is
 *		queue.c			reading alarms in the order they are due
 *		zone.c			local times and instants
 *		every.c	the grid of times of an interval
 *		cron.c			the times of a cron expression
 *		cron_parse.c	reading cron expressions
 *		cron_describe.c		saying in English what they mean
 *		calendar.c		the times of a recurring task
 *		resolve.c		which function a callback's name means
 *		callback_plan.c	from a function and keys to a prepared call
 *		callback.c		callbacks that are ready to be called
 *		callback_bind.c	from values to parameters of the call
 *		execute.c		running SQL as a client's message is run
 *		call.c			making the call
 *		zone_names.c	time zones by the names that users give them
 *		api_checks.c	what all functions check: owners, ids, selectors
 *		alias.c			names that stand for callbacks
 *		spec.c			the parameters of add_task, checked
 *		spec_rows.c		between them and the row of a task
 *		api_change.c	pause, resume, remove, re-time
 *		new_task.c		a task that is added: checking and writing it
 *		api_add.c		add_task, add_tasks
 *		api_owner.c		giving tasks to other roles
 *		api_activate.c	activate
 *		api_read.c		fetch, try_task, next_wakeup, the views' functions
 *		view_writes.c			what is said to those who write to our views
 *		run_start.c		what is known of a task when its run begins
 *		history.c		the record of runs
 *		failure.c		what follows a failed run
 *		outcome.c		what a run's end writes into the task's row
 *		cut_off.c		runs that are cut off before their end
 *		api_preview.c	next_runs, describe
 *		stop.c			stopping a run
 *		session.c		a worker's session, as new after each run
 *		rehearsal.c		a new worker's look ahead at its first run
 *		run.c			one run of a task, in a transaction
 *		worker.c		the process that runs the tasks of a role
 *		lookahead.c		the scheduler's memory of what is due next
 *		lost_runs.c		runs that have lost their workers
 *		admission.c		keeping roles out whose tasks must not run
 *		pool.c			the scheduler's workers
 *		idle_exit.c			when a scheduler leaves that has nothing to do
 *		maintenance.c		what a scheduler does beside handing out tasks
 *		scheduler.c		the process that hands due tasks out
 *		fair_share.c		which database gets what room there is for processes
 *		databases.c		which databases the launcher serves
 *		launcher.c		the process that starts the others
 *		commands.c		DROP OWNED, REASSIGN OWNED, DROP EXTENSION
 *		taskshed.c		module load: settings and hooks
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_H
#define TASKSHED_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/pairingheap.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "port/atomics.h"
#include "pgtime.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"

/* ------------------------------------------------------------------------
 * taskshed.c
 */
extern bool ts_enabled;
extern int	ts_max_workers;
extern int	ts_worker_idle_timeout; /* ms */
extern int	ts_scheduler_idle_timeout;	/* ms */
extern int	ts_synchronous_commit;	/* a SYNCHRONOUS_COMMIT_... */
extern int	ts_log_failures;	/* an elevel, or 0 for off */
extern int	ts_history;			/* 'a'll, 'e'rrors or 'n'one */
extern int	ts_history_retention;	/* minutes */
extern int	ts_failed_retention;	/* minutes; -1: for ever */
extern int	ts_history_max_size;	/* MB */
extern int	ts_history_max_text;	/* bytes */
extern int	ts_pause_after_failures;
extern int	ts_timeout;			/* ms; 0: none */
extern int	ts_max_interruptions;
extern int	ts_max_workers_per_role;	/* 0: no limit */
extern bool ts_allow_superuser_tasks;
extern int	ts_max_tasks_per_role;	/* 0: no limit */

/*
 * The version of the extension's SQL that this library is for, the same as in
 * taskshed.control; store.c compares it with that of the database.
 */
#define TASKSHED_VERSION	"1.0"

extern void ts_require_preload(void);

/*
 * What our processes decide goes to the log at DEBUG1, what they do with single
 * tasks at DEBUG2, beginning with a word by which it can be found.  The arguments
 * are looked at only if it is written.  Not for what is done with a spinlock held.
 */
#define ts_debug(elevel, ...) \
	ereport(elevel, (errmsg_internal("taskshed: " __VA_ARGS__), errhidestmt(true)))

/* ------------------------------------------------------------------------
 * shared.c
 */

/*
 * Slots of max_worker_processes that are left to others, the server's logical
 * replication launcher being one of them.
 */
#define TS_SLOTS_LEFT_FREE	2

/* Databases that have a scheduler, or tasks for which one will be started. */
#define TS_MAX_DATABASES	256

/* Roles whose tasks are counted at the same time, in all databases. */
#define TS_QUOTAS			1024

/* Tables of the history of runs. */
#define TS_HISTORY_PARTS	8

/* Notes of committed changes that a scheduler has not taken yet. */
#define TS_NOTES			1024

/* Prepared transactions of which the tasks are known, and how many each may have. */
#define TS_PREPARED			128
#define TS_PREPARED_NOTES	8

/* Tasks handed to a worker ahead, and outcomes it has not reported yet. */
#define TS_HANDED			64
#define TS_REPORTS			128

/* One task was written: it is to run at run_at, or is not any more. */
typedef struct TsNote
{
	TimestampTz run_at;
	int64		id;
	Oid			owner;
	bool		gone;
} TsNote;

/* What became of a task that was handed to a worker. */
typedef enum TsFate
{
	TS_FATE_GONE,				/* no row left to come back to */
	TS_FATE_NEXT,				/* its row waits for next_run_at */
	TS_FATE_LOOK				/* the row was changed: read it again */
} TsFate;

typedef struct TsReport
{
	int64		id;
	TsFate		fate;
	TimestampTz next_run_at;	/* with TS_FATE_NEXT */
} TsReport;

/* Counts since the server's start, added to by workers as they go. */
typedef struct TsCounts
{
	int64		runs_ok;
	int64		runs_failed;
	TimestampTz last_failure_at;
} TsCounts;

typedef enum TsDatabaseState
{
	TS_DB_FREE = 0,				/* the entry is not in use */
	TS_DB_IDLE,					/* has no scheduler, wants none */
	TS_DB_ASLEEP,				/* has none, and is to have one at start_at */
	TS_DB_WANTED,				/* waits for one, not to be started before
								 * start_at */
	TS_DB_STARTING,				/* the launcher has asked for one */
	TS_DB_RUNNING				/* has one */
} TsDatabaseState;

/* Has a scheduler been asked to leave for that of another database? */
typedef enum TsGiveWay
{
	TS_STAY = 0,
	TS_GIVE_WAY_IDLE,			/* if it has nothing to do */
	TS_GIVE_WAY					/* it has had its turn */
} TsGiveWay;

/* A database that has, had or is to get a scheduler. */
typedef struct TsDatabase
{
	slock_t		mutex;			/* protects all that follows */
	TsDatabaseState state;
	Oid			oid;
	int			reservations;	/* transactions about to leave notes */
	int			holds;			/* no process of ours may be there if > 0 */
	TimestampTz start_at;		/* of the next scheduler, if it has none */
	int			bad_starts;		/* starts in a row that soon ended */
	PGPROC	   *scheduler;		/* NULL without one */
	int			scheduler_pid;
	TimestampTz since;			/* when it came */
	bool		wanted_again;	/* somebody has asked for one since it was
								 * looked whether there can be one */
	bool		outdated;		/* it has old settings, and is to leave */
	TsGiveWay	give_way;
	bool		resting;		/* nothing is going on, nor due in a moment */
	TimestampTz worked_at;		/* when there last was, or a commit told of
								 * something */

	/* what a scheduler has left behind that is away, with TS_DB_ASLEEP */
	bool		empty;			/* no task at all that could become due */
	bool		locked_out;		/* tasks wait for a change of roles */

	/* set by commits that leave something, cleared when that is taken */
	bool		noted;

	/* what the scheduler sleeps until; DT_NOBEGIN while it is awake */
	TimestampTz alarm;

	/* notes for the scheduler, oldest first */
	uint32		notes_head;
	uint32		notes_tail;
	TsNote		notes[TS_NOTES];

	/* reread the queue from here: notes were lost; DT_NOEND if none were */
	TimestampTz reread_from;

	int			history_part;	/* where workers record runs */

	bool		unheard;		/* wants a worker, and all slots are in use */
	bool		stopped;		/* no scheduler is of use, as message says;
								 * with TS_DB_IDLE */

	/* what the view status shows */
	bool		disabled;
	bool		held;			/* its tasks, since they came with a copy */
	int			due;
	TimestampTz oldest_due;		/* DT_NOEND if none */
	TimestampTz next_wakeup;	/* DT_NOEND if none */
	int64		failed;			/* tasks, as last counted */
	TsCounts	counts;
	char		message[256];
} TsDatabase;

typedef enum TsWorkerState
{
	TS_WORKER_FREE = 0,			/* the slot is not in use */
	TS_WORKER_ASKED,			/* the launcher is to start it */
	TS_WORKER_STARTING,			/* registered, not connected yet */
	TS_WORKER_READY				/* takes tasks */
} TsWorkerState;

/*
 * An idle worker gets a task up to this long (us) before it is due, and waits for
 * that moment itself: one process less to be woken then.
 */
#define TS_HAND_AHEAD	1000

/* A task that a worker is to run, at its time or as soon after as it can. */
typedef struct TsHanded
{
	int64		id;
	TimestampTz run_at;
	ItemPointerData place;		/* where its alarm was seen, or invalid */
} TsHanded;

/*
 * A worker, from the scheduler's wish for it to its exit.  The generation
 * tells one use of a slot from the next.
 */
typedef struct TsWorker
{
	slock_t		mutex;			/* protects all that follows */
	TsWorkerState state;
	uint32		generation;
	TimestampTz since;			/* when it was asked for, then when started */
	Oid			database;
	Oid			role;
	bool		is_superuser;	/* as what it connects */
	int64		first_id;		/* the task for which it was asked */
	TimestampTz first_run_at;	/* when that is due */
	PGPROC	   *proc;			/* NULL before it has attached */
	int			pid;
	bool		retire;			/* is to leave after its current run */
	bool		unseen;			/* has gone, and its scheduler has not noticed */
	bool		shortage;		/* since there was not enough of something */

	/* the run in progress; 0 between runs */
	int64		running_id;
	int64		running_revision;	/* of its task, once that is read */
	TimestampTz running_scheduled_at;	/* the time that it is for */
	int			running_attempt;
	TimestampTz running_since;
	uint32		serial;			/* counts the tasks taken; never 0 in a run */
	volatile bool timed_out;	/* it is ending since its run would not */
	bool		bystander;		/* it is ended for what is no fault of its run */
	volatile bool stuck;		/* and even that does not work */

	volatile bool ending;		/* the callback is done, its outcome is
								 * written */

	/* the serial of a run that is to be cancelled, and a count of requests */
	pg_atomic_uint64 stop_request;

	/* tasks handed out and not taken yet, mostly in that order */
	uint32		handed_head;
	uint32		handed_tail;
	TsHanded	handed[TS_HANDED];

	/* outcomes the scheduler has not collected yet, oldest first */
	uint32		reports_head;
	uint32		reports_tail;
	TsReport	reports[TS_REPORTS];
} TsWorker;

/* A run that was in progress when the server died. */
typedef struct Suspect
{
	int64		id;				/* of the task; 0 in an empty entry */
	int64		revision;
	TimestampTz scheduled_at;
	TimestampTz started_at;
	Oid			database;
	Oid			owner;
	int			attempt;
	int			worker_pid;
	bool		blameless;		/* it had ended, which could not be recorded */
} Suspect;

/* How many tasks a role has in a database, at most. */
typedef struct TsQuota
{
	Oid			database;		/* invalid in an entry that is not in use */
	Oid			owner;
	uint32		count;			/* which one made the bound */
	int64		bound;			/* it has no more tasks than this */
	int64		added;			/* what has been added to the bound */
} TsQuota;

/* What a prepared transaction will tell the scheduler of its database. */
typedef struct PreparedHint
{
	char		gid[GIDSIZE];	/* its name; "" in an entry that is not in use */
	int			n;
	TsNote		notes[TS_PREPARED_NOTES];
	TimestampTz reread_from;	/* DT_NOEND if that is all */
	TimestampTz gone_from;		/* a task of this time is gone; or DT_NOEND */
} PreparedHint;

typedef struct TsShared
{
	LWLock	   *lock;			/* allocation of databases[] */
	LWLock	   *quota_lock;		/* protects quotas[] */
	pg_atomic_uint32 quota_counts;	/* how many entries were made or counted */
	TsQuota		quotas[TS_QUOTAS];
	slock_t		prepared_mutex; /* protects prepared[] */
	PreparedHint prepared[TS_PREPARED];
	pg_atomic_uint32 unnamed_prepared;	/* count of those without a name */
	slock_t		mutex;			/* protects the next four, and the suspects */
	PGPROC	   *launcher;
	bool		look_around;	/* into all databases, as at its start */
	bool		probed;			/* that was done */
	bool		crowded;		/* a database waits for others to rest */
	pg_atomic_uint32 role_changes;	/* commits that may concern roles_check */
	pg_atomic_uint32 reloads;	/* that have changed what schedulers look at */
	int			nworkers;		/* worker slots */
	int			nsuspects;
	Suspect    *suspects;		/* room for one for each worker slot */
	TsDatabase	databases[TS_MAX_DATABASES];
	TsWorker	workers[FLEXIBLE_ARRAY_MEMBER];
} TsShared;

extern TsShared *ts_shared;		/* NULL without preload */

extern void shared_init(void);
extern TsDatabase *shared_find_database(Oid database);
extern TsDatabase *shared_reserve_database(Oid database);
extern TsDatabase *shared_try_reserve_database(Oid database);
extern bool shared_is_on_hold(TsDatabase *db);
extern void shared_release_database(TsDatabase *db);
extern void shared_free_idle_databases(void);
extern void shared_want_scheduler(TsDatabase *db);
extern void shared_end_sleep(TsDatabase *db);
extern void shared_wake_launcher(void);
extern void shared_look_around(void);
extern void shared_wake_scheduler(TsDatabase *db);
extern void shared_tell_role_change(void);
extern TsWorker *shared_ask_worker(Oid database, Oid role, bool is_superuser,
								   int64 first_id, TimestampTz first_run_at);
extern void shared_set_unheard(TsDatabase *db, bool unheard);
extern void shared_set_message(TsDatabase *db, const char *message);
extern void shared_free_worker(TsWorker *worker);
extern void shared_override_setting(const char *name, const char *value);
extern void shared_process_interrupts(void);
extern bool shared_has_settings(void);
extern bool shared_is_shortage(const ErrorData *error);
extern int64 shared_ticks(void);
extern bool shared_clock_was_set_back(void);

/* ------------------------------------------------------------------------
 * shortage.c
 */
extern void shortage_watch(void);
extern bool shortage_ends_process(int code);

/* ------------------------------------------------------------------------
 * crash_record.c
 */
extern void suspects_startup(void);
extern void suspects_note(const Suspect *suspect);
extern void suspects_clear(void);
extern void suspects_forget(int slot, int64 id);
extern bool suspects_take(Oid database, Suspect *suspect);

/* ------------------------------------------------------------------------
 * prepared.c
 */

/* Kinds of what there is to tell. */
enum
{
	PREPARED_NOTES = 1,			/* tasks, to the scheduler */
	PREPARED_ROLES = 2,			/* roles, to all schedulers */
	PREPARED_SETTINGS = 4,		/* settings, to all our processes */
	PREPARED_DATABASES = 8,		/* opened or closed databases, to the launcher */
	PREPARED_LAST = PREPARED_DATABASES
};

extern void prepared_init(void);
extern void prepared_set_name(const char *gid);
extern void prepared_mark(int kind);
extern void prepared_remember(const TsNote *notes, int n, TimestampTz reread_from,
							  TimestampTz gone_from);
extern int	prepared_kinds(const char *gid);
extern bool prepared_take(const char *gid, PreparedHint *taken);
extern bool prepared_commits_unnamed(void);

/* ------------------------------------------------------------------------
 * notes.c
 */
extern void notes_init(void);
extern void notes_tell_prepared(const PreparedHint *prepared);
extern void notes_add(TimestampTz run_at, int64 id, Oid owner);
extern void notes_add_gone(TimestampTz run_at, int64 id, Oid owner);
extern void notes_want_scheduler(void);
extern void notes_reread(void);
extern void notes_roles_changed(void);

/* ------------------------------------------------------------------------
 * cancel.c
 */
extern bool cancel_run(int64 id);

/* ------------------------------------------------------------------------
 * changed_settings.c
 */
extern void settings_init(void);
extern void settings_note_statement(const Node *statement);
extern void settings_tell_all(void);

/* ------------------------------------------------------------------------
 * database_hold.c
 */
extern void hold_init(void);
extern void hold_for_drop(Oid database);
extern void hold_for_statement(const Node *statement);
extern void hold_look_into(Oid database);
extern List *hold_end_processes(TsDatabase *db, List *pids, bool *found);

/* ------------------------------------------------------------------------
 * roles.c
 */
typedef enum RoleState
{
	ROLE_OK,
	ROLE_GONE,					/* it does not exist */
	ROLE_NOLOGIN,				/* nobody can connect as it */
	ROLE_NOCONNECT,				/* or not to this database */
	ROLE_SUPERUSER				/* whose tasks are not allowed */
} RoleState;

extern void roles_init(void);
extern void roles_watch(void);
extern uint64 roles_generation(void);
extern RoleState roles_check(Oid role, bool *is_superuser);
extern char *roles_reason(Oid role, RoleState state);

/* ------------------------------------------------------------------------
 * table_shape.c
 */
typedef struct ColumnShape
{
	Oid			type;
	bool		not_null;
} ColumnShape;

typedef struct IndexShape
{
	bool		unique;
	int			nkeys;
	AttrNumber	keys[3];
} IndexShape;

extern bool shape_fits(Oid relid, int natts, const ColumnShape *columns);
extern bool shape_index_fits(Oid relid, Oid table, const IndexShape *shape);

/* ------------------------------------------------------------------------
 * table_writer.c
 */
typedef struct WriterState WriterState;
typedef struct Writer Writer;

/* What is kept of a table; static and zeroed to begin with. */
typedef struct WriterCache
{
	WriterState *state;
	bool		valid;
} WriterCache;

extern void writer_invalidate(WriterCache *cache, Oid relid);
extern Writer *writer_open(WriterCache *cache, Relation rel);
extern void writer_close(Writer *writer);
extern void writer_insert(Writer *writer, TupleTableSlot *slot);
extern void writer_update(Writer *writer, ItemPointer tid, TupleTableSlot *slot);
extern bool writer_try_insert(Writer *writer, TupleTableSlot *slot, Oid key);

/* ------------------------------------------------------------------------
 * store.c
 */

/* Columns of taskshed.task and taskshed.alarm, as the script creates them. */
enum
{
	Anum_task_id = 1,
	Anum_task_owner,
	Anum_task_created_at,
	Anum_task_owner_name,
	Anum_task_is_alias,
	Anum_task_task_id,
	Anum_task_group_id,
	Anum_task_callback,
	Anum_task_kwargs,
	Anum_task_run_type,
	Anum_task_every,
	Anum_task_schedule,
	Anum_task_timezone,
	Anum_task_until,
	Anum_task_max_runs,
	Anum_task_catch_up,
	Anum_task_start_within,
	Anum_task_timeout,
	Anum_task_max_attempts,
	Anum_task_retry_delay,
	Anum_task_retry_backoff,
	Anum_task_retry_max_delay,
	Anum_task_history,
	Natts_task = Anum_task_history
};

enum
{
	Anum_alarm_id = 1,
	Anum_alarm_run_at,
	Anum_alarm_scheduled_at,
	Anum_alarm_anchor,
	Anum_alarm_revision,
	Anum_alarm_run_count,
	Anum_alarm_owner,
	Anum_alarm_attempt,
	Anum_alarm_failures_in_row,
	Anum_alarm_interruptions,
	Anum_alarm_resume_at,
	Anum_alarm_paused_at,
	Anum_alarm_failed_at,
	Anum_alarm_previous_run_at,
	Anum_alarm_begun_at,
	Anum_alarm_last_run_at,
	Anum_alarm_last_status,
	Anum_alarm_last_sqlstate,
	Anum_alarm_last_error,
	Anum_alarm_late_from,
	Anum_alarm_restarts,
	Anum_alarm_shortage_since,
	Anum_alarm_close_failures,
	Anum_alarm_asked_at,
	Natts_alarm = Anum_alarm_asked_at
};

/* A row of either table: its place and its columns. */
typedef struct TaskRow
{
	ItemPointerData tid;
	Datum		values[Natts_task];
	bool		nulls[Natts_task];
} TaskRow;

typedef struct AlarmRow
{
	ItemPointerData tid;
	Datum		values[Natts_alarm];
	bool		nulls[Natts_alarm];
} AlarmRow;

/* The value of a column that is not null, as in ROW_GET(Int64, row, alarm_id). */
#define ROW_DATUM(row, column) \
	(AssertMacro(!(row)->nulls[Anum_##column - 1]), \
	 (row)->values[Anum_##column - 1])
#define ROW_GET(type, row, column) \
	DatumGet##type(ROW_DATUM(row, column))
#define ROW_ISNULL(row, column) \
	((row)->nulls[Anum_##column - 1])
#define ROW_SET(type, row, column, value) \
	((row)->nulls[Anum_##column - 1] = false, \
	 (row)->values[Anum_##column - 1] = type##GetDatum(value))
#define ROW_SET_NULL(row, column) \
	((row)->nulls[Anum_##column - 1] = true, \
	 (row)->values[Anum_##column - 1] = (Datum) 0)

/*
 * Has what a run in progress will write come too late.  Revisions are compared
 * for being equal only, so it does not matter where they begin again.
 */
static inline void
alarm_raise_revision(AlarmRow *alarm)
{
	ROW_SET(Int64, alarm, alarm_revision,
			(int64) ((uint64) ROW_GET(Int64, alarm, alarm_revision) + 1));
}

/* A task's attempts, and the runs that were interrupted, are counted anew. */
static inline void
alarm_count_anew(AlarmRow *alarm)
{
	ROW_SET(Int32, alarm, alarm_attempt, 0);
	ROW_SET(Int32, alarm, alarm_interruptions, 0);
	ROW_SET_NULL(alarm, alarm_restarts);
	ROW_SET_NULL(alarm, alarm_begun_at);
	ROW_SET_NULL(alarm, alarm_late_from);
	ROW_SET_NULL(alarm, alarm_shortage_since);
}

/*
 * Has a run begun for the time that a task waits for?  Whether it has failed or was
 * cut off, it begins again then, and is not late.  For a time that is to come only
 * a run by hand can have.
 */
static inline bool
alarm_has_begun(const AlarmRow *alarm)
{
	if (ROW_GET(TimestampTz, alarm, alarm_scheduled_at) > GetCurrentTimestamp())
		return false;
	return ROW_GET(Int32, alarm, alarm_attempt) > 0 ||
		!ROW_ISNULL(alarm, alarm_restarts) || !ROW_ISNULL(alarm, alarm_begun_at) ||
		(!ROW_ISNULL(alarm, alarm_late_from) &&
		 ROW_GET(TimestampTz, alarm, alarm_late_from) == DT_NOEND);
}

/* Their indexes. */
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

/* The tables, open; indexes and what writing needs are opened on demand. */
typedef struct Store
{
	Relation	task;
	Relation	alarm;
	TupleTableSlot *task_slot;
	TupleTableSlot *alarm_slot;
	Relation	indexes[STORE_NINDEXES];
	Writer	   *task_writer;	/* NULL before the first write */
	Writer	   *alarm_writer;
} Store;

/* Can the tables be worked with? */
typedef enum StoreState
{
	STORE_FINE,
	STORE_ABSENT,				/* the extension is not there */
	STORE_ALTERED,				/* they are not as it has made them */
	STORE_OTHER_VERSION			/* it is not the one of this library */
} StoreState;

extern void store_relation_changed(Oid relid);
extern void store_extension_changed(void);
extern bool store_exists(void);
extern StoreState store_state(void);
extern char *store_version_mismatch(void);
extern void store_report(int elevel, StoreState state);
extern void store_require_version(void);
extern Store *store_try_open(LOCKMODE lockmode);
extern void store_lock_for_drop(void);
extern Store *store_open(LOCKMODE lockmode);
extern void store_close(Store *store, LOCKMODE lockmode);
extern Relation store_index(Store *store, StoreIndex which);
extern Oid	store_index_relid(StoreIndex which);
extern Writer *store_task_writer(Store *store);
extern Writer *store_alarm_writer(Store *store);
extern Oid	store_home_relid(void);
extern int64 store_new_id(void);

/* ------------------------------------------------------------------------
 * store_find.c
 */
extern bool store_sees(Snapshot snapshot, TupleTableSlot *slot);
extern bool store_find_task(Store *store, Oid owner, Datum task_id, TaskRow *row);
extern bool store_get_task(Store *store, int64 id, TaskRow *row);
extern void store_copy_alarm(Store *store, AlarmRow *row);
extern bool store_get_alarm(Store *store, int64 id, AlarmRow *row);
extern bool store_get_alarm_at(Store *store, int64 id, const ItemPointerData *place, AlarmRow *row);
extern int64 *store_find_group(Store *store, Oid owner, Datum group_id, int *n);
extern int64 *store_find_owned(Store *store, Oid owner, int *n);
extern int	store_count_owned(Store *store, Oid owner, int limit, int *removed);

/* ------------------------------------------------------------------------
 * store_write.c
 */

/* Where the rows of a task were seen, and in which files. */
typedef struct RowPlaces
{
	bool		known;
	ItemPointerData task;
	Oid			task_file;
	ItemPointerData alarm;
	Oid			alarm_file;
} RowPlaces;

extern TM_Result store_lock_alarm(Store *store, int64 id, AlarmRow *row,
								  LockWaitPolicy wait_policy);
extern void store_remember(Store *store, const TaskRow *task, const AlarmRow *alarm,
						   RowPlaces *places);
extern TM_Result store_relock_alarm(Store *store, int64 id, const RowPlaces *places,
									AlarmRow *row, LockWaitPolicy wait_policy);
extern bool store_await_removal(Store *store, int64 id);
extern void store_insert_task(Store *store, TaskRow *row);
extern bool store_try_insert_task(Store *store, TaskRow *row);
extern void store_update_task(Store *store, TaskRow *row);
extern void store_delete_task(Store *store, TaskRow *row);
extern void store_insert_alarm(Store *store, AlarmRow *row);
extern void store_update_alarm(Store *store, AlarmRow *row);
extern void store_delete_alarm(Store *store, AlarmRow *row);
extern bool store_try_delete_alarm_at(Store *store, int64 id, const RowPlaces *places);
extern void store_delete_task_at(Store *store, int64 id, const RowPlaces *places);

/* ------------------------------------------------------------------------
 * copies.c
 */

/* The columns of taskshed.home. */
enum
{
	Anum_home_database = 1,
	Anum_home_restored,
	Natts_home = Anum_home_restored
};

typedef enum HomeState
{
	HOME_EMPTY,					/* there are no tasks and no aliases */
	HOME_HERE,					/* they may run here */
	HOME_COPIED,				/* they came with a copy made by TEMPLATE */
	HOME_RESTORED				/* or with one made from a dump */
} HomeState;

static inline bool
home_is_held(HomeState state)
{
	return state == HOME_COPIED || state == HOME_RESTORED;
}

/* Where tasks that are held came from. */
typedef struct HomeOrigin
{
	List	   *databases;		/* OIDs of those that they were copied from */
	bool		known;			/* is anything known of it? */
	bool		other_server;	/* their owners' OIDs may be those of another */
} HomeOrigin;

extern void home_relation_changed(Oid relid);
extern bool home_is_settled(void);
extern HomeState home_state(Store *store, HomeOrigin *origin);
extern void home_lock(void);
extern void home_settle(void);
extern void home_claim(Store *store);
extern const char *home_detail(HomeState state);
extern void home_check_statement(const Node *statement);

/* ------------------------------------------------------------------------
 * replicated.c
 */
extern void replicated_relation_changed(Oid relid);

/* ------------------------------------------------------------------------
 * max_tasks.c
 */
extern void quota_init(void);
extern void quota_note(Oid owner);
extern void quota_add(Store *store, Oid owner);

/* ------------------------------------------------------------------------
 * late_from.c
 */

/* A task with catch_up skip starts this late (us) at most, if it does not say. */
#define SKIP_START_WITHIN	USECS_PER_SEC

extern void late_from_init(void);
extern void late_from_commit(AlarmRow *alarm);

/* ------------------------------------------------------------------------
 * queue.c
 */

/* A place in an owner's part of the queue. */
typedef struct QueueKey
{
	TimestampTz run_at;
	int64		id;
} QueueKey;

static inline int
queue_key_cmp(const QueueKey *a, const QueueKey *b)
{
	if (a->run_at != b->run_at)
		return a->run_at < b->run_at ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return 0;
}

/* A task as it is read from the queue. */
typedef struct QueueEntry
{
	QueueKey	key;
	int			interruptions;	/* so many runs in a row were interrupted */
	ItemPointerData place;		/* of its alarm; may be invalid, if unknown */
} QueueEntry;

extern int	queue_read(Store *store, Snapshot snapshot, Oid owner,
					   const QueueKey *after, QueueEntry *entries, int max);
extern Oid	queue_next_owner(Store *store, Snapshot snapshot, Oid after);
extern int64 queue_count_failed(Store *store, Snapshot snapshot, bool (*counts) (Oid owner));
extern int	queue_read_failed(Store *store, Snapshot snapshot, TimestampTz before, int64 *ids, int max);

/* ------------------------------------------------------------------------
 * zone.c
 */

/* A time during which the offset of a zone stays the same, in s since 1970. */
typedef struct ZoneSpan
{
	int64		from;
	int64		to;				/* PG_INT64_MAX: for ever */
	int			offset;			/* s east of UTC */
} ZoneSpan;

extern void zone_span(pg_tz *zone, int64 from, ZoneSpan *span);
extern bool zone_instant(pg_tz *zone, int64 local, int64 *instant);
extern int64 zone_unseen(pg_tz *zone, int64 instant);
extern bool zone_timestamp(int64 seconds, int usecs, TimestampTz *result);
extern int64 zone_seconds(TimestampTz timestamp);

/* ------------------------------------------------------------------------
 * every.c
 */
extern bool recurrence_moves_forward(const Interval *every);
extern void recurrence_check_length(const char *what, const Interval *interval);
extern void recurrence_check_interval(const Interval *every);
extern bool recurrence_next(TimestampTz anchor, const Interval *every, pg_tz *zone,
							TimestampTz after, TimestampTz *next);

/* ------------------------------------------------------------------------
 * cron.c
 */

/* What a cron expression says.  In the sets bit n stands for the value n. */
typedef struct Cron
{
	uint64		seconds;
	uint64		minutes;
	uint32		hours;
	uint32		days;			/* of the month, from 1 */
	uint32		nearest;		/* days whose nearest workday is meant */
	uint16		months;			/* from 1 */
	uint8		weekdays;		/* 0 is Sunday */
	uint8		nth_weekdays[5];	/* the first, second ... of the month */
	uint8		last_weekdays;	/* the last of the month */
	bool		last_day;		/* of the month */
	bool		last_workday;	/* of the month */
	bool		any_day;		/* with one of these both must match; without, */
	bool		any_weekday;	/* one of days and weekdays */
	bool		by_elapsed_time;	/* a wildcard or step in minutes or hours */
	int			period;			/* s; if not 0, nothing else counts */
} Cron;

extern int	cron_next_bit(uint64 bits, int n);
extern bool cron_can_match(const Cron *cron);
extern bool cron_next(const Cron *cron, pg_tz *zone, TimestampTz after, TimestampTz *next);

/* ------------------------------------------------------------------------
 * cron_parse.c
 */

/* What is wrong with an expression; detail and hint may be NULL. */
typedef struct CronProblem
{
	const char *message;
	const char *detail;
	const char *hint;
} CronProblem;

extern bool cron_parse(const char *text, Cron *cron, CronProblem *problem);
extern void cron_check(const char *text, Cron *cron);
extern void cron_check_interval(const char *text);

/* ------------------------------------------------------------------------
 * cron_describe.c
 */
extern char *describe_cron(const Cron *cron, const char *zone, const char *offsets);

/* ------------------------------------------------------------------------
 * calendar.c
 */

/* When a recurring task runs. */
typedef struct Calendar
{
	pg_tz	   *zone;
	bool		has_schedule;
	Cron		schedule;		/* if it has one; otherwise: */
	Interval	every;
	TimestampTz anchor;
} Calendar;

extern bool calendar_next(const Calendar *calendar, TimestampTz after, TimestampTz *next);

/* ------------------------------------------------------------------------
 * resolve.c
 */

/* An argument of a function or procedure, as declared. */
typedef struct CallbackArgument
{
	const char *name;			/* "" if it has none */
	Oid			type;
	bool		is_input;		/* IN, INOUT or VARIADIC */
	bool		is_variadic;
	bool		is_result;		/* OUT; neither: a column of RETURNS TABLE */
	bool		has_default;
} CallbackArgument;

extern List *resolve_name(const char *name);
extern int	resolve_distance(const char *written, const char *name, int bound);
extern char *resolve_qualify(const char *name);
extern char *resolve_qualified_name(Oid funcid);
extern char *resolve_signature(Oid funcid);
extern int	resolve_arguments(Oid funcid, CallbackArgument **arguments);
extern bool resolve_takes_whole(Oid funcid);
pg_noreturn extern void resolve_report_unknown(List *names);
pg_noreturn extern void resolve_report_ambiguous(List *names);
extern Oid	resolve_callback(const char *name, char **keys, int nkeys);
extern char *resolve_target(const char *name);

/* ------------------------------------------------------------------------
 * callback_plan.c
 */

typedef enum CallbackKind
{
	CALLBACK_FUNCTION,
	CALLBACK_PROCEDURE,
	CALLBACK_EXECUTE			/* taskshed.execute */
} CallbackKind;

/* A value that is passed: which key it is under, and how to convert it. */
typedef struct CallbackParameter
{
	Oid			type;
	bool		whole;			/* it is all of kwargs */
	bool		foreign;		/* converting it runs code of other users */
	bool		has_row_type;	/* a row type is part of its type */
	TupleDesc	desc;			/* the key as the only column of a record */
	FmgrInfo	to_record;		/* jsonb_to_record, with its cache */
} CallbackParameter;

/* A callback with the keys of some kwargs, resolved and ready to be called. */
typedef struct Callback
{
	MemoryContext context;		/* holds this and all that hangs off it */
	char	   *name;			/* as asked for */
	Oid			role;
	uint64		path;			/* hash of search_path; 0 for qualified names */
	int			nkeys;
	char	  **keys;			/* of kwargs, in jsonb's order */
	char	   *kinds;			/* of their values, a letter each */
	bool		polymorphic;	/* the kinds matter */
	bool		needs_settings; /* what values mean can depend on settings */

	uint64		generation;		/* valid while this is the current one */
	uint64		row_generation; /* and, if it has to do with row types, this */
	bool		has_row_type;
	int			holders;		/* not to be freed while there are any */
	int			binding;		/* the parameter being converted, or -1 */
	CallbackKind kind;
	Oid			funcid;
	char	   *qualified;		/* name, schema-qualified and quoted */
	char	   *signature;		/* for messages */
	char	   *query;			/* the call */
	bool		is_constant;	/* a plan would hold its result */
	int			nparams;
	CallbackParameter *params;
	CachedPlanSource *plan;		/* of the call */
} Callback;

extern void callback_write_call(Callback *callback);
extern bool callback_plan(Callback *callback);
extern void callback_position_context(void *arg);

/* ------------------------------------------------------------------------
 * callback.c
 */
extern void callback_init(void);
extern void callback_relation_changed(Oid relid);
extern Callback *callback_prepare(const char *name, Jsonb *kwargs);
extern uint64 callback_generation(void);
extern void callback_prune(void);
extern void callback_hold(Callback *callback);
extern void callback_release(Callback *callback);
extern void callback_check_privilege(const Callback *callback, Oid role);

/* ------------------------------------------------------------------------
 * callback_bind.c
 */
extern int	callback_enter_zone(pg_tz *zone);
extern ParamListInfo callback_bind(Callback *callback, Jsonb *kwargs, pg_tz *zone, bool checking);
extern const char *callback_unbound(const Callback *callback);

/* ------------------------------------------------------------------------
 * execute.c
 */
extern char *execute_portal(Portal portal, MemoryContext result_context);
extern bool execute_log_statement(const char *text, List *statements);
extern void execute_log_duration(const char *text, bool was_logged);
extern List *execute_parse(const char *text);
extern char *execute_message(const char *text);

/* ------------------------------------------------------------------------
 * call.c
 */
extern void call_check_values(const Callback *callback, ParamListInfo params);
extern char *call_at_top_level(Callback *callback, ParamListInfo params);
extern char *call_here(Callback *callback, ParamListInfo params);

/* ------------------------------------------------------------------------
 * zone_names.c
 */
extern pg_tz *spec_zone(const char *name);
extern char *zone_offsets(pg_tz *zone, TimestampTz now);

/* ------------------------------------------------------------------------
 * api_checks.c
 */
extern void spec_require_writable(const char *function);
extern bool spec_database_is_template(void);
extern void spec_warn_if_waiting(void);
extern Oid	spec_owner(const char *name);
extern void spec_check_may_act(Oid owner);
extern void spec_check_login(Oid owner);
extern void spec_check_selector(bool no_task_ids, bool no_group_id);
extern void spec_check_id(const char *what, text *id);
extern void spec_check_run_at(TimestampTz run_at);

/* ------------------------------------------------------------------------
 * alias.c
 */
extern void alias_relation_changed(Oid relid);
extern char *alias_find(Oid owner, const char *name);
extern char *alias_require(Oid owner, const char *name);
extern void alias_visit_owners(void (*visit) (Oid owner, const NameData *name, void *arg), void *arg);
extern int	alias_move(Oid owner, const NameData *name, Oid new_owner, const NameData *new_name);
extern void alias_drop_owned(Oid owner);

/* ------------------------------------------------------------------------
 * spec.c
 */

/* What add_task was asked for, all but the callback's resolution checked. */
typedef struct TaskSpec
{
	char	   *callback;
	bool		has_run_at;
	TimestampTz run_at;
	Jsonb	   *kwargs;
	bool		recurring;
	Interval   *every;			/* these are NULL if not given */
	text	   *schedule;
	Calendar	calendar;		/* of schedule */
	text	   *task_id;		/* NULL: generate one */
	text	   *group_id;		/* or NULL */
	bool		has_paused;
	bool		paused;
	const char *catch_up;
	bool		has_until;
	TimestampTz until;
	int			max_runs;		/* 0: no limit */
	Interval   *start_within;	/* so are these */
	Interval   *timeout;
	Interval   *retry_delay;
	Interval   *retry_max_delay;
	int			max_attempts;	/* -1 if not given */
	double		retry_backoff;	/* 0 if not given */
	char	   *history;		/* NULL if not given */
	bool		replace_existing;
	const char *timezone;
	Oid			owner;
	bool		validate;
} TaskSpec;

/* Parameters of add_task in their order, which are also keys in add_tasks. */
enum
{
	ADD_CALLBACK,
	ADD_RUN_AT,
	ADD_KWARGS,
	ADD_RUN_TYPE,
	ADD_EVERY,
	ADD_TASK_ID,
	ADD_GROUP_ID,
	ADD_PAUSED,
	ADD_CATCH_UP,
	ADD_REPLACE_EXISTING,
	ADD_SCHEDULE,
	ADD_TIMEZONE,
	ADD_UNTIL,
	ADD_MAX_RUNS,
	ADD_START_WITHIN,
	ADD_TIMEOUT,
	ADD_MAX_ATTEMPTS,
	ADD_RETRY_DELAY,
	ADD_RETRY_BACKOFF,
	ADD_RETRY_MAX_DELAY,
	ADD_HISTORY,
	ADD_OWNER,
	ADD_VALIDATE,
	ADD_NPARAMS
};

/* What reading parameters from JSON objects takes. */
typedef struct SpecReader
{
	TupleDesc	desc;			/* the parameters as columns of a record */
	FmgrInfo	to_record;		/* jsonb_to_record, with its cache */
} SpecReader;

extern void spec_init_reader(SpecReader *reader);
extern void spec_check_keys(Jsonb *object, bool *given);
extern void spec_read(SpecReader *reader, Jsonb *object, pg_tz *zone, Datum *values, bool *nulls);
extern bool spec_has_times(const bool *nulls);
extern void spec_build(TaskSpec *spec, const Datum *values, const bool *nulls, Oid owner,
					   pg_tz *zone, TimestampTz now);
extern TimestampTz spec_first_run(const TaskSpec *spec, TimestampTz now);
extern bool spec_is_over(const TaskSpec *spec, TimestampTz next, int64 run_count);
extern void spec_tell_over(const TaskSpec *spec, TimestampTz next, bool removed);
extern char *spec_check_call(const TaskSpec *spec, const char *name);

/* ------------------------------------------------------------------------
 * spec_rows.c
 */
extern void spec_from_task(const TaskRow *task, Datum *values, bool *nulls);
extern void spec_fill_task(TaskRow *row, const TaskSpec *spec);
extern bool spec_same_task(const TaskRow *a, const TaskRow *b, TupleDesc desc);
extern bool spec_same_times(const TaskSpec *spec, const TaskRow *new, const TaskRow *old,
							TupleDesc desc);
extern bool spec_same_until(const TaskRow *new, const TaskRow *old, TupleDesc desc);

/* ------------------------------------------------------------------------
 * api_change.c
 */

/*
 * A change of one task, whose alarm is locked.  What arg is, a time or a role,
 * is between the change and who asks for it.  Returns whether there was
 * anything to change.
 */
typedef bool (*TaskChange) (Store *store, AlarmRow *alarm, int64 arg);

extern bool change_remove(Store *store, AlarmRow *alarm, int64 unused);
extern void change_time(AlarmRow *alarm, TimestampTz run_at);
extern TimestampTz change_due_at(const AlarmRow *alarm);
extern void change_note(const AlarmRow *alarm, TimestampTz was_due_at);
extern int	change_tasks(Store *store, Oid owner, ArrayType *task_ids, text *group_id,
						 TaskChange change, int64 arg);

/* ------------------------------------------------------------------------
 * new_task.c
 */

/* A task on its way into the tables. */
typedef struct NewTask
{
	/* what was asked for, which is read again if its zone is another */
	Datum	   *values;
	bool	   *nulls;
	Jsonb	   *object;			/* where they are from, or NULL */
	pg_tz	   *read_in;		/* the zone in which they were read from it */

	TaskSpec	spec;
	TimestampTz first_run;		/* if it is new, or has new times */
	char	   *callback;		/* schema-qualified, or an alias */
	bool		is_alias;
	int			element;		/* its place in add_tasks' array */
	bool		named;			/* its task_id was given */
	bool		seen;			/* and there was a task of that */
	int64		id;				/* if not, the one it is to have */
	Datum		task_id;		/* what is returned */
} NewTask;

/* The alias that was looked up last: the next task is likely to have the same. */
typedef struct LastAlias
{
	MemoryContext context;		/* what is here lives in it */
	Oid			owner;
	char	   *callback;		/* NULL before the first */
	char	   *target;			/* what it stands for, or NULL */
} LastAlias;

/* A call of add_task or add_tasks. */
typedef struct Adding
{
	Store	   *store;
	TimestampTz now;			/* when it began: the time of all that have no
								 * other */
	bool		replace_existing;	/* if a task does not say */
	SpecReader	reader;			/* for add_tasks */
	MemoryContext scratch;		/* for what is not kept */
	LastAlias	last;
	bool		claimed;		/* something was added or replaced */
} Adding;

extern void add_prepare(Adding *adding, NewTask *task);
extern void add_write(Adding *adding, NewTask *task);

/* ------------------------------------------------------------------------
 * api_owner.c
 */
extern void owner_reassign_owned(Store *store, Oid owner, Oid new_owner);
extern void owner_drop_owned(Store *store, Oid owner);

/* ------------------------------------------------------------------------
 * api_read.c
 */
extern bool read_is_running(int64 id);

/* ------------------------------------------------------------------------
 * view_writes.c
 */
extern void views_init(void);

/* ------------------------------------------------------------------------
 * run_start.c
 */

/*
 * How a run began: what its outcome is compared with, and all that its end
 * needs to know of the task.
 */
typedef struct RunStart
{
	int64		id;
	TimestampTz created_at;		/* of the task; ids can come again, these not */
	int64		revision;
	TimestampTz scheduled_at;	/* the time it is for */
	TimestampTz late_from;		/* it is not late before this; DT_NOEND: it
								 * has begun before, and is not late at all */
	TimestampTz started_at;
	TimestampTz previous_run_at;	/* DT_NOBEGIN if none */
	int			attempt;		/* counted from 1 */
	int			restarts;		/* of it, after runs that were cut off */
	int			worker_pid;
	RowPlaces	places;			/* known only in the transaction that looked */

	Oid			owner;
	NameData	owner_name;		/* as last known */
	char	   *task_id;
	char	   *group_id;		/* or NULL */
	char	   *callback;		/* as stored */
	bool		recurring;
	Calendar	calendar;		/* its zone is NULL if unknown to this server */
	const char *no_grid;		/* why its next time cannot be told; or NULL */
	char		catch_up;		/* 'c'oalesce, 'a'll or 's'kip */
	int64		start_within;	/* us; -1: no limit */
	TimestampTz until;			/* DT_NOEND: no limit */
	int			max_runs;		/* 0: no limit */
	int			max_attempts;	/* 0: no limit */
	int64		retry_delay;	/* us */
	double		retry_backoff;
	int64		retry_max_delay;	/* us */
	int64		timeout;		/* us; 0: none */
	char		history;		/* 'a'll, 'e'rrors or 'n'one */
	bool		extra;			/* beside the schedule: run_tasks */
	bool		by_hand;		/* the same, or all that is left of a task */
	TimestampTz asked_at;		/* when it was last added as it is; or
								 * DT_NOBEGIN */
} RunStart;

extern void run_start_read(RunStart *start, const TaskRow *task, const AlarmRow *alarm,
						   TimestampTz now);
extern void run_start_read_limits(RunStart *start, const TaskRow *task);
extern bool run_start_is_missed(const RunStart *start);
extern TimestampTz run_start_covered(const RunStart *start, bool missed);
extern bool run_start_next(const RunStart *start, bool missed, TimestampTz *next);

/* ------------------------------------------------------------------------
 * history.c
 */

extern void history_relation_changed(Oid relid);
extern void history_record(const RunStart *start, const char *status, const char *result,
						   const ErrorData *error);
extern void history_lock_for_drop(void);
extern void history_maintain(TsDatabase *db);

/* ------------------------------------------------------------------------
 * failure.c
 */

/* How a run has failed. */
typedef struct Failure
{
	const char *status;			/* failed, timeout, cancelled or interrupted */
	const ErrorData *error;
	const char *callback;		/* what was called, an alias resolved */
	const char *message;		/* of the error, without values of kwargs */
} Failure;

extern char *failure_one_line(const char *text);
extern bool failure_is_shortage(const ErrorData *error);
extern void failure_log(const RunStart *start, const Failure *failure, AlarmRow *alarm);
extern bool failure_outlast_shortage(const RunStart *start, const Failure *failure,
									 AlarmRow *alarm, TimestampTz *retry_at);
extern Failure failure_found(const RunStart *start, const char *status, const ErrorData *error);
extern bool failure_retry_at(const RunStart *start, TimestampTz *retry_at);

/* ------------------------------------------------------------------------
 * outcome.c
 */

/* What the end of a run finds of its task. */
typedef enum Found
{
	FOUND_GONE,					/* it was removed */
	FOUND_CHANGED,				/* its revision was raised */
	FOUND_SAME
} Found;

extern void outcome_init(void);
extern bool outcome_is_queued(const AlarmRow *alarm);
extern Found outcome_lock(Store *store, const RunStart *start, AlarmRow *alarm, TsReport *report);
extern void outcome_end(AlarmRow *alarm, const RunStart *start, const char *status,
						const ErrorData *error);
extern void outcome_give_up(Store *store, AlarmRow *alarm, TsReport *report);
extern void outcome_missed(Store *store, const RunStart *start, TsReport *report);
extern void outcome_succeeded(Store *store, const RunStart *start, const char *result,
							  TsReport *report);
extern void outcome_failed(Store *store, const RunStart *start, const Failure *failure,
						   TsReport *report);
extern bool outcome_orphaned(Store *store, int64 id, Oid owner, const char *reason);
extern bool outcome_expire(Store *store, int64 id, TimestampTz before);

/* ------------------------------------------------------------------------
 * cut_off.c
 */

/* A run whose worker has gone, as far as its slot tells. */
typedef struct LostRun
{
	int64		revision;
	TimestampTz scheduled_at;
	TimestampTz started_at;
	int			attempt;
	int			worker_pid;
	int			slot;			/* or -1 */
	Oid			owner;			/* as whom it ran */
	bool		timed_out;
	bool		crashed;		/* with the whole server */
	bool		bystander;		/* the task is not to blame: another run
								 * probably is, or nobody */
} LostRun;

extern bool cut_off_begin(Store *store, RunStart *start, TsReport *report);
extern bool cut_off_record(Store *store, int64 id, const LostRun *lost, bool *again,
						   int *interruptions);

/* ------------------------------------------------------------------------
 * stop.c
 */

/* How long (ms) a callback may go on after it was told that its time is up. */
#define STOP_GRACE	5000

typedef enum StopReason
{
	STOP_NONE,
	STOP_CANCEL,				/* cancel_task */
	STOP_TIMEOUT
} StopReason;

extern void stop_init(void);
extern void stop_enable(int64 timeout);
extern void stop_disable(int64 timeout);
extern StopReason stop_get_reason(const ErrorData *error);

/* ------------------------------------------------------------------------
 * session.c
 */
extern void session_start(void);
extern void session_apply_settings(void);
extern void session_reset(bool settings_left);

/* ------------------------------------------------------------------------
 * rehearsal.c
 */
extern void rehearse(int64 id);

/* ------------------------------------------------------------------------
 * run.c
 */
typedef enum RunResult
{
	RUN_NONE,					/* it was not to run */
	RUN_SUCCEEDED,
	RUN_FAILED
} RunResult;

extern void run_init(void);
extern RunResult run_task(const TsHanded *task, TsReport *report);

/* ------------------------------------------------------------------------
 * worker.c
 */
extern TsWorker *ts_my_worker;	/* NULL elsewhere */

extern void worker_wake_scheduler_from_handler(void);
extern void worker_retire(void);

extern PGDLLEXPORT void ts_worker_main(Datum main_arg);

/* ------------------------------------------------------------------------
 * lookahead.c
 */

/* The tasks of one role that the scheduler knows of. */
typedef struct RoleQueue
{
	Oid			role;			/* hash key */
	pairingheap *waiting;		/* LookaheadTasks, earliest first */
	int			nwaiting;
	QueueKey	frontier;		/* all up to here has been read */
	bool		read_all;		/* and so has all that comes after it */

	/* what is known of the role, of which admission.c takes care */
	bool		checked;		/* it has been looked up */
	RoleState	state;
	bool		is_superuser;
	char	   *reason;			/* why its tasks do not run, or NULL */

	/* the pool's part */
	int			nworkers;		/* of this role, those on their way included */
	int			nthere;			/* and those that are to leave */
	int			nstarting;		/* of these, those on their way */
	int			failed_starts;	/* in a row */
	TimestampTz asked_at;		/* when it last was given one */
	TimestampTz start_after;	/* none is started before this */
} RoleQueue;

typedef struct LookaheadTask
{
	int64		id;				/* hash key */
	pairingheap_node node;		/* in queue->waiting, unless handed out */
	QueueKey	key;			/* when to hand it out */
	TimestampTz run_at;			/* as in the table; earlier if it was put off */
	RoleQueue  *queue;
	ItemPointerData place;		/* where its alarm was read, or invalid */
	int			slot;			/* of the worker it was handed to, or -1 */
	TimestampTz handed_at;
	bool		changed;		/* noted while it was handed out */
	int			interruptions;	/* runs in a row that lost their worker */
} LookaheadTask;

/* How long (us) a task that was interrupted keeps others of its kind waiting. */
#define TS_SUSPECT_WATCH	(10 * USECS_PER_SEC)

extern void lookahead_start(void);
extern RoleQueue *lookahead_role(Oid role);
extern int	lookahead_count_roles(void);
extern void lookahead_prune_roles(void);
extern RoleQueue *lookahead_next_role(bool restart);
extern void lookahead_reread(Store *store, Snapshot snapshot, TimestampTz from);
extern void lookahead_note(Store *store, const TsNote *note);
extern void lookahead_look_later(int64 id, TimestampTz not_before);
extern bool lookahead_wants_reading(void);
extern void lookahead_read(Store *store, Snapshot snapshot);
extern LookaheadTask *lookahead_first(RoleQueue *queue);
extern LookaheadTask *lookahead_find(int64 id);
extern bool lookahead_is_calm(bool waits, TimestampTz now, bool *empty, bool *locked_out);
extern int	lookahead_count_due(TimestampTz now, TimestampTz *oldest);
extern void lookahead_hand_out(LookaheadTask *task, int slot, TimestampTz now);
extern void lookahead_take_back(LookaheadTask *task);
extern bool lookahead_must_wait(LookaheadTask *task, TimestampTz now);
extern void lookahead_put_off(LookaheadTask *task, TimestampTz until);
extern void lookahead_look_again(LookaheadTask *task);
extern void lookahead_adopt(int64 id, Oid role, int slot);
extern void lookahead_report(const TsReport *report);
extern bool lookahead_lost_worker(int slot, int64 running_id);

/* ------------------------------------------------------------------------
 * lost_runs.c
 */
extern void losses_add(int64 id, const LostRun *run);
extern bool losses_exist(void);
extern bool losses_write(Store *store);
extern void losses_written(void);

/* ------------------------------------------------------------------------
 * admission.c
 */
extern bool admission_is_needed(TimestampTz *again);
extern bool admission_check(Oid database);
extern bool admission_is_current(void);

/* ------------------------------------------------------------------------
 * pool.c
 */
extern void pool_collect(Oid database);
extern void pool_dismiss(void);
extern bool pool_is_calm(void);
extern bool pool_is_empty(void);
extern bool pool_take_stuck(int64 *id, int *pid);
extern TimestampTz pool_dispatch(Oid database, TimestampTz now, bool *backlog);

/* ------------------------------------------------------------------------
 * idle_exit.c
 */

/* A scheduler is back this long (us) before it has something to do. */
#define REST_LEAD	(2 * USECS_PER_SEC)

/* Whether a scheduler can leave, as found in a round. */
typedef struct Rest
{
	bool		possible;		/* nothing is going on, nor due in a moment */
	bool		held;			/* all tasks are */
	bool		empty;			/* see TsDatabase */
	bool		locked_out;
	TimestampTz wake;			/* when there is something to do; or DT_NOEND */
	TimestampTz leave_at;		/* if nothing happens before; or DT_NOEND */
} Rest;

extern void rest_look(TsDatabase *db, TimestampTz now, TimestampTz wake, bool held, Rest *rest);
extern bool rest_begin(TsDatabase *db, const Rest *rest);

/* ------------------------------------------------------------------------
 * maintenance.c
 */
extern TimestampTz chores_write_losses(void);
extern TimestampTz chores_admit(Oid database);
extern void chores_report_stuck(int64 id, int pid);
extern void chores_maintain_history(TsDatabase *db);
extern bool chores_expire_failed(void);
extern void chores_mention_failed(int64 failed);

/* ------------------------------------------------------------------------
 * scheduler.c
 */
extern PGDLLEXPORT void ts_scheduler_main(Datum main_arg);

/* ------------------------------------------------------------------------
 * fair_share.c
 */

/* A worker's slot, as last seen. */
typedef struct Place
{
	TsWorkerState state;
	uint32		generation;
	TimestampTz since;
	Oid			database;
	Oid			role;
	bool		leaving;		/* after its run, if it is at one */
	bool		idle;
	TimestampTz running_since;
} Place;

extern void places_init(void);
extern const Place *places_get(int i);
extern void places_look(void);
extern bool places_room_for_worker(Oid database);
extern bool places_room_for_scheduler(void);
extern bool places_make_room(Oid database, Oid role);
extern void places_make_room_for_scheduler(Oid database);
extern void places_complain(void);
extern int	places_choose_asked(const bool *skip);
extern void places_count_scheduler(Oid database);
extern void places_count_worker(int i);
extern void places_drop(int i);
extern void places_set_full(void);
extern void places_start_anew(void);

/* ------------------------------------------------------------------------
 * databases.c
 */
extern void databases_init(void);
extern long databases_probe(void);
extern void databases_clear_closed(void);
extern void databases_stop_clearing(int i);
extern bool databases_may_serve(TsDatabase *db);

/* ------------------------------------------------------------------------
 * launcher.c
 */
extern void launcher_register(void);
extern PGDLLEXPORT void ts_launcher_main(Datum main_arg);

/* ------------------------------------------------------------------------
 * commands.c
 */
extern void utility_init(void);

#endif							/* TASKSHED_H */
