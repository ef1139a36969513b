/*-------------------------------------------------------------------------
 *
 * run.c
 *		One run of a task, in one transaction.
 *
 * The transaction reads the task afresh, calls the callback at its top level,
 * finishes all user code that it still holds, writes the outcome and commits:
 * the callback's effects and the task's own rows become one commit record.
 * No lock on our tables or rows is held while user code runs.
 *
 * Whatever the role has set for its sessions applies around the callback and
 * nowhere else: the outcome is written in a transaction that may write, with
 * no lock_timeout, by code that looks at no setting.
 *
 * If anything fails, at commit too, the transaction is rolled back and a
 * second one records the failure, if the task still is what it was.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

/*
 * How often a run that lost a deadlock or the like is tried again at once,
 * before that counts as its failure.
 */
#define CONFLICT_RETRIES	5

/* How long (ms) to wait after a failure for whose record there was no space. */
#define SHORTAGE_PAUSE		1000

/* Counts the transactions that this process has ended. */
static uint64 run_transactions = 0;

/* What a run changes of the process, as it was before. */
typedef struct Surroundings
{
	int			synchronous_commit;
	int			lock_timeout;	/* the role's */
} Surroundings;

/* What is known of the task that is being run. */
typedef struct Run
{
	int64		id;
	ItemPointerData place;		/* where its alarm was seen, or invalid */
	RunStart	start;
	bool		started;		/* start is filled in */
	bool		missed;			/* it is too late for it */
	TimestampTz begun_for;		/* it has begun for this time, */
	int64		begun_revision; /* of this revision; DT_NOBEGIN: for none */
	bool		called;			/* the callback has begun */
	bool		committed;		/* it has ended transactions of its own */
	int64		begun;			/* revision of which a begin was recorded */
	TsReport   *report;
	uint64		transactions;	/* run_transactions when the callback began */
	MemoryContext context;		/* outlives the transactions; holds the rest */
	char	   *callback;		/* what is called, an alias resolved */
	Jsonb	   *kwargs;
	char	   *result;			/* or NULL */
	Callback   *binding;		/* whose values are being converted, or NULL */
	Snapshot	pin;			/* keeps the task's rows in their places, or
								 * NULL */
	Surroundings before;
} Run;

/* The run whose callback is being called. */
static Run *current_run = NULL;

static void
run_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		run_transactions++;
}

/* Once a worker. */
void
run_init(void)
{
	RegisterXactCallback(run_xact_callback, NULL);
}

static void
surroundings_save(Surroundings *saved)
{
	saved->synchronous_commit = synchronous_commit;
	saved->lock_timeout = LockTimeout;
}

static void
surroundings_restore(const Surroundings *saved)
{
	synchronous_commit = saved->synchronous_commit;
	LockTimeout = saved->lock_timeout;
}

/* From here to the end of the transaction only our own code runs. */
static void
run_enter_bookkeeping(const Run *run)
{
	stop_disable(run->start.timeout);
	HOLD_CANCEL_INTERRUPTS();
	XactReadOnly = false;
	LockTimeout = 0;			/* the callback had the role's */
}

/* The outcome is committed: who wanted to cancel the run came too late. */
static void
run_leave_bookkeeping(void)
{
	QueryCancelPending = false;
	RESUME_CANCEL_INTERRUPTS();
}

/*
 * Starts a transaction whose own reads and writes no default of the role
 * binds.  The snapshot is pushed.
 */
static void
run_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactReadOnly = false;
	XactDeferrable = false;
	LockTimeout = 0;
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * Tells others what they need to know if this process should not come back, and
 * whether it does so because of the run, as far as anybody knows.
 */
static void
run_announce(const Run *run, bool blameless)
{
	Suspect		suspect;

	memset(&suspect, 0, sizeof(suspect));	/* its checksum includes the
											 * padding */
	suspect.id = run->id;
	suspect.revision = run->start.revision;
	suspect.scheduled_at = run->start.scheduled_at;
	suspect.started_at = run->start.started_at;
	suspect.database = MyDatabaseId;
	suspect.owner = run->start.owner;
	suspect.attempt = run->start.attempt;
	suspect.worker_pid = MyProcPid;
	suspect.blameless = blameless;

	SpinLockAcquire(&ts_my_worker->mutex);
	if (blameless)
		ts_my_worker->bystander = true;
	ts_my_worker->running_since = run->start.started_at;
	ts_my_worker->running_revision = run->start.revision;
	ts_my_worker->running_scheduled_at = run->start.scheduled_at;
	ts_my_worker->running_attempt = run->start.attempt;
	SpinLockRelease(&ts_my_worker->mutex);
	crash_record_note(&suspect);
}

/*
 * Is this process still what the role can be?  If anything about roles has
 * changed since that was last asked, it may not be allowed to connect any
 * more, or be more or less than it was: then the process is to leave.
 */
static bool
run_role_fits(void)
{
	static uint64 checked = 0;
	uint64		generation = roles_generation();
	bool		is_superuser;

	if (checked == generation)
		return true;
	if (roles_check(GetSessionUserId(), &is_superuser) != ROLE_OK ||
		is_superuser != ts_my_worker->is_superuser)
	{
		slot_retire();
		return false;
	}
	checked = generation;
	return true;
}

/*
 * Reads the task's rows.  Returns false if it is not to run now, with the
 * report filled in.
 */
static bool
run_read(Run *run)
{
	Store	   *store = store_try_open(AccessShareLock);
	AlarmRow	alarm;
	TaskRow		task;
	RowPlaces	places;
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext old;
	bool		there;

	run->report->id = run->id;
	run->report->fate = TS_FATE_GONE;
	if (store == NULL)
	{
		/* the extension has been dropped: the scheduler will see that too */
		run->report->fate = TS_FATE_LOOK;
		return false;
	}
	if (!run_role_fits())
	{
		run->report->fate = TS_FATE_LOOK;
		store_close(store, AccessShareLock);
		return false;
	}
	there = store_get_alarm_at(store, run->id, &run->place, &alarm) &&
		store_get_task(store, run->id, &task);

	/*
	 * in between, somebody may have given it to another role, both rows at
	 * once
	 */
	if (there && ROW_GET(ObjectId, &task, task_owner) != ROW_GET(ObjectId, &alarm, alarm_owner))
		there = store_get_alarm(store, run->id, &alarm);
	if (there)
		store_remember(store, &task, &alarm, &places);
	store_close(store, AccessShareLock);
	if (!there || !alarm_is_queued(&alarm))
		return false;
	if (ROW_GET(TimestampTz, &alarm, alarm_run_at) > now ||
		ROW_GET(ObjectId, &alarm, alarm_owner) != GetSessionUserId())
	{
		run->report->fate = TS_FATE_LOOK;
		return false;
	}

	old = MemoryContextSwitchTo(run->context);
	run_start_read(&run->start, &task, &alarm, now);
	run->start.places = places;
	if (run->begun_for == run->start.scheduled_at && run->begun_revision == run->start.revision)
		run->start.late_from = DT_NOEND;
	run->missed = catch_up_is_missed(&run->start);
	run->started = true;
	run->callback = run->start.callback;
	if (!run->missed)
	{
		run->begun_for = run->start.scheduled_at;
		run->begun_revision = run->start.revision;
		run_announce(run, false);
	}
	if (ROW_GET(ObjectId, &task, task_owner) != GetSessionUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the rows of the task have different owners"),
				 errdetail("They can only have been written by hand.")));
	if (ROW_GET(Bool, &task, task_is_alias))
		run->callback = alias_require(run->start.owner, run->start.callback);
	run->kwargs = DatumGetJsonbPCopy(ROW_DATUM(&task, task_kwargs));
	MemoryContextSwitchTo(old);
	return true;
}

/*
 * Opens the tables for the outcome.  The extension may have been dropped while
 * the callback was running, and the task with it: NULL.  Where there still is a
 * task, but no way to write down its outcome, there must be none: 55000.
 */
static Store *
run_open_store(Run *run)
{
	Store	   *store = store_try_open(RowExclusiveLock);

	if (store == NULL)
	{
		run->report->fate = TS_FATE_LOOK;
		if (store_state() != STORE_ABSENT)
			store_report(ERROR, store_state());
	}
	return store;
}

/*
 * Finds out what is to be called, in a run that can be stopped.  If it could
 * end transactions of its own, that it has begun is first recorded in one of
 * ours.  Returns NULL if the task is not to run after all.
 */
static Callback *
run_prepare(Run *run)
{
	Callback   *callback;
	Store	   *store;
	bool		go_on = false;

	MemoryContextSwitchTo(run->context);
	stop_enable(run->start.timeout);
	callback = callback_prepare(run->callback, run->kwargs);
	if (callback->kind == CALLBACK_FUNCTION)
	{
		if (run->start.places.known)
			run->pin = RegisterSnapshotOnOwner(GetActiveSnapshot(), TopTransactionResourceOwner);
		return callback;
	}
	run->start.places.known = false;
	if (run->begun == run->start.revision)
		return callback;

	PopActiveSnapshot();
	CommitTransactionCommand();
	run_begin();
	run_enter_bookkeeping(run);
	store = run_open_store(run);
	if (store != NULL)
	{
		go_on = cut_off_begin(store, &run->start, run->report);
		store_close(store, NoLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();

	if (!go_on)
		return NULL;
	run->begun = run->start.revision;
	run_begin();
	stop_enable(run->start.timeout);

	/* it may have been changed between the transactions */
	return callback_prepare(run->callback, run->kwargs);
}

/*
 * Calls the callback and finishes all user code that is left behind it.
 *
 * A procedure, or a command of taskshed.execute, may have ended transactions
 * of its own.  What it has done since is then committed here, and the outcome
 * is written in one more transaction: in between, a crash has the task run
 * again.
 *
 * What the callback has set ends here, but not what it has made its transaction
 * be: that is to be committed as what it is.
 */
static void
run_callback(Run *run, Callback *callback)
{
	int			guc_level;
	int			commit_mode;
	int			isolation;
	ParamListInfo params;

	/* a client's message may say what its transaction is to be like */
	if (callback->kind == CALLBACK_EXECUTE)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		StartTransactionCommand();
	}
	guc_level = NewGUCNestLevel();

	/* all this must outlive the transaction */
	MemoryContextSwitchTo(run->context);
	current_run = run;
	XactReadOnly = DefaultXactReadOnly;
	LockTimeout = run->before.lock_timeout;
	run->transactions = run_transactions;
	run->called = true;
	run->binding = callback;
	params = callback_bind(callback, run->kwargs, run->start.calendar.zone, false);
	run->binding = NULL;
	if (callback->kind == CALLBACK_PROCEDURE)
		PopActiveSnapshot();
	run->result = call_at_top_level(callback, params);
	if (callback->kind == CALLBACK_FUNCTION)
		PopActiveSnapshot();

	commit_mode = synchronous_commit;
	if (run_transactions == run->transactions)
	{
		/* deferred triggers can open held cursors, and those fire triggers */
		do
			AfterTriggerFireDeferred();
		while (PreCommit_Portals(false));
		commit_mode = synchronous_commit;
		isolation = XactIsoLevel;
		AtEOXact_GUC(false, guc_level);
		XactIsoLevel = isolation;
	}
	else
	{
		run->committed = true;
		CommitTransactionCommand();
		run_begin();
		PopActiveSnapshot();
	}
	synchronous_commit = commit_mode;
	current_run = NULL;
}

/* Says in pg_stat_activity what is running, to those who may see queries. */
static void
run_show(Run *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	char	   *text = psprintf("%s -- task %s", run->callback, run->start.task_id);

	MemoryContextSwitchTo(old);
	debug_query_string = text;

	pgstat_report_activity(STATE_RUNNING, text);
}

/* The run itself.  Any error leaves it to the caller to record. */
static void
run_attempt(Run *run)
{
	Callback   *callback;
	Store	   *store;

	run->pin = NULL;
	run_begin();
	if (!run_read(run))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return;
	}
	run_show(run);
	if (IsolationUsesXactSnapshot())
	{
		/* what the callback sees must not be older than what was read */
		run->start.places.known = false;
		PopActiveSnapshot();
		CommitTransactionCommand();
		run_begin();
	}

	if (run->missed)
	{
		run->start.places.known = false;
		PopActiveSnapshot();
	}
	else if ((callback = run_prepare(run)) != NULL)
		run_callback(run, callback);
	else
	{
		run->started = false;
		return;
	}

	run_enter_bookkeeping(run);
	ts_my_worker->ending = true;
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	store = run_open_store(run);
	if (store != NULL)
	{
		if (run->missed)
			outcome_missed(store, &run->start, run->report);
		else
			outcome_succeeded(store, &run->start, run->result, run->report);
		store_close(store, NoLock);
	}
	if (run->pin != NULL)
		UnregisterSnapshotFromOwner(run->pin, TopTransactionResourceOwner);
	PopActiveSnapshot();
	CommitTransactionCommand();
	run_leave_bookkeeping();
}

static RunStatus
run_status(const ErrorData *error)
{
	switch (stop_get_reason(error))
	{
		case STOP_CANCEL:
			return RUN_CANCELLED;
		case STOP_TIMEOUT:
			return RUN_TIMEOUT;
		default:
			return RUN_FAILED;
	}
}

/* Records a failure in a transaction of its own. */
static void
run_record_failure(Run *run, const ErrorData *error)
{
	Failure		failure = {run_status(error), error, run->callback, error->message};
	const char *unbound = NULL;
	Store	   *store;

	run_begin();
	run_enter_bookkeeping(run);
	ts_my_worker->ending = true;
	run->start.places.known = false;
	if (run->binding != NULL)
		unbound = callback_unbound(run->binding);
	if (unbound != NULL)
		failure.message = unbound;
	store = run_open_store(run);
	if (store == NULL)
		failure_log(&run->start, &failure, NULL);
	else
	{
		outcome_failed(store, &run->start, &failure, run->report);
		store_close(store, NoLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	run_leave_bookkeeping();
}

/*
 * Rolls back after an error and gives it back, copied into the current memory
 * context.
 */
static ErrorData *
run_abort(MemoryContext context)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	disable_all_timeouts(false);
	stop_disable(0);
	QueryCancelPending = false;
	AbortOutOfAnyTransaction(); /* one that the command began included */
	PortalErrorCleanup();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	return error;
}

/*
 * Is an error nobody's fault, so that the run can just be tried again?  That
 * is so for deadlocks and serialization conflicts, and for what the server
 * says when a function that it has found is dropped under its eyes.
 */
static bool
run_lost_race(const ErrorData *error, uint64 generation)
{
	bool		changed;

	if (error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		return true;
	if (error->sqlerrcode != ERRCODE_INTERNAL_ERROR)
		return false;

	/* a new transaction learns of what others have done meanwhile */
	StartTransactionCommand();
	changed = (callback_generation() != generation);
	CommitTransactionCommand();
	return changed;
}

/*
 * Lets those go first who were in the way of a run: for some 10 ms, and twice
 * as long each time.
 */
static void
run_step_aside(int tries)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 5L << tries, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Waits a while, whoever sets the latch. */
static void
run_pause(long ms)
{
	int64		end = process_ticks() + ms * INT64CONST(1000);
	long		left;

	while ((left = (long) ((end - process_ticks() + 999) / 1000)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		QueryCancelPending = false; /* no run is in progress */
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Records a failure.  If there is no space for that, or the tables have become
 * those of another version, the task stays as it was and will be run again, when
 * the scheduler has written down that this run has begun: it is a lost run whose
 * worker leaves.  Not at once: there is nothing that would slow it down, or the
 * tasks behind it.
 */
static void
run_try_record_failure(Run *run, const ErrorData *error)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile second = NULL;

	PG_TRY();
	{
		run_record_failure(run, error);
	}
	PG_CATCH();
	{
		second = run_abort(context);
	}
	PG_END_TRY();
	if (second == NULL)
		return;
	if (!shortage_caused(second) &&
		second->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		ReThrowError(second);

	ereport(LOG,
			(errcode(second->sqlerrcode),
			 errmsg("could not record that task \"%s\" has failed: %s",
					failure_one_line(run->start.task_id), failure_one_line(second->message)),
			 errdetail("The task is run again."),
			 errhidestmt(true)));
	run_announce(run, true);
	run_pause(SHORTAGE_PAUSE);
	proc_exit(0);
}

/*
 * Runs a task, if it is due, fills in what became of it, and puts the session
 * back as new.  The task is one of the role that this process is connected as.
 * The current memory context is the run's; the caller resets it.  Returns how the
 * run has ended; RUN_NONE if it was not to run.
 */
RunStatus
run_task(const TsHanded *task, TsReport *report)
{
	MemoryContext context = CurrentMemoryContext;
	Run			run = {.id = task->id,.place = task->place,.report = report,.context = context,
	.begun_for = DT_NOBEGIN};
	ErrorData  *volatile error = NULL;
	volatile int tries = 0;
	volatile bool again;
	volatile bool committed = false;
	volatile uint64 generation = 0;

	surroundings_save(&run.before);
	QueryCancelPending = false;
	do
	{
		again = false;
		run.called = false;
		run.binding = NULL;
		generation = callback_generation();
		error = NULL;
		PG_TRY();
		{
			ts_my_worker->ending = false;
			if (tries > 0)
				run_step_aside(tries);
			run_attempt(&run);
		}
		PG_CATCH();
		{
			/* not undone by the rollback: what a procedure has committed */
			committed = (run.called && run_transactions != run.transactions);
			error = run_abort(context);
		}
		PG_END_TRY();
		surroundings_restore(&run.before);

		if (error != NULL && !committed && tries < CONFLICT_RETRIES &&
			run_lost_race(error, generation))
		{
			session_reset(false);
			again = true;
			tries++;
		}
		MemoryContextSwitchTo(context);
	} while (again);

	if (error != NULL)
	{
		/* not even read: whatever is wrong is not the task's fault */
		if (!run.started)
			ReThrowError(error);
		if (stop_get_reason(error) == STOP_TIMEOUT)
			error->message = "the run took longer than its timeout";
		else if (stop_get_reason(error) == STOP_CANCEL)
			error->message = "the run was cancelled";
		run_try_record_failure(&run, error);
		surroundings_restore(&run.before);
		MemoryContextSwitchTo(context);
	}

	crash_record_clear();
	current_run = NULL;
	debug_query_string = NULL;
	session_reset(committed || run.committed);
	callback_prune();
	if (error != NULL)
		return run_status(error);
	return !run.started ? RUN_NONE : run.missed ? RUN_MISSED : RUN_SUCCEEDED;
}

/*
 * What the callback can ask about its own run.  Only the code of a run sees
 * anything, and nothing that it could set has an influence.
 */
PG_FUNCTION_INFO_V1(ts_current_task);
Datum
ts_current_task(PG_FUNCTION_ARGS)
{
	Run		   *run = current_run;
	TupleDesc	desc;
	Datum		values[6] = {0};
	bool		nulls[6] = {false};
	Interval   *lag;

	if (run == NULL)
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	lag = palloc0(sizeof(Interval));
	lag->time = run->start.started_at - run->start.scheduled_at;
	values[0] = CStringGetTextDatum(run->start.task_id);
	if (run->start.group_id != NULL)
		values[1] = CStringGetTextDatum(run->start.group_id);
	nulls[1] = (run->start.group_id == NULL);
	values[2] = TimestampTzGetDatum(run->start.scheduled_at);
	/* of an earlier run that was cut off only a procedure has left anything */
	values[3] = Int32GetDatum(run->start.attempt + (run->begun != 0 ? run->start.restarts : 0));
	values[4] = IntervalPGetDatum(lag);
	values[5] = TimestampTzGetDatum(run->start.previous_run_at);
	nulls[5] = (run->start.previous_run_at == DT_NOBEGIN);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
