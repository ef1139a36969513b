/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The process that runs tasks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_WORKER_WORKER_H
#define TASKSHED_WORKER_WORKER_H

#include "postgres.h"

#include "api/api.h"

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
extern void session_reset_within(void);
extern void session_reset(bool settings_left);

/* ------------------------------------------------------------------------
 * rehearsal.c
 */
extern void rehearse(int64 id);

/* ------------------------------------------------------------------------
 * transaction.c
 */
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
	ItemPointerData alarm_tid;	/* where its alarm was seen, or invalid */
	TaskRow		task;			/* in the context below */
	RunStart	start;
	bool		started;		/* start is filled in */
	bool		missed;			/* it is too late for it */
	TimestampTz begun_for;		/* it has begun for this time, */
	int64		begun_revision; /* of this revision; DT_NOBEGIN: for none */
	bool		called;			/* the callback has begun */
	bool		committed;		/* it has ended transactions of its own */
	bool		has_set;		/* its task's settings are set for the session */
	int			lock_timeout;	/* that of the callback (ms) */
	int64		begun;			/* revision of which a begin was recorded */
	TsReport   *report;
	uint64		transactions;	/* that had ended when the callback began */
	MemoryContext context;		/* outlives the transactions; holds the rest */
	char	   *callback;		/* what is called, an alias resolved */
	Jsonb	   *kwargs;
	char	   *result;			/* or NULL */
	Callback   *binding;		/* whose values are being converted, or NULL */
	Snapshot	pin;			/* keeps the task's rows in their places, or
								 * NULL */
	Surroundings before;
	bool		shared;			/* it is to be run in the transaction of
								 * another, */
	bool		put_off;		/* and cannot be */
	Store	   *store;			/* that is open for all runs of the
								 * transaction, or NULL */
} Run;

extern void transaction_init(void);
extern uint64 transaction_count(void);
extern void transaction_save_surroundings(Surroundings *saved);
extern void transaction_restore_surroundings(const Surroundings *saved);
extern void transaction_set_commit_mode(int mode);
extern void transaction_begin(void);
extern void transaction_enter_bookkeeping(const Run *run);
extern void transaction_leave_bookkeeping(void);
extern Store *transaction_open_store(Run *run);
extern ErrorData *transaction_roll_back(MemoryContext context);

/* ------------------------------------------------------------------------
 * run_announce.c
 */
extern void run_announce(const Run *run, bool blameless);

/* ------------------------------------------------------------------------
 * run_read.c
 */
extern bool run_read(Run *run);

/* ------------------------------------------------------------------------
 * run_failure.c
 */
extern RunStatus run_failure_status(const ErrorData *error);
extern bool run_failure_lost_race(const ErrorData *error, uint64 generation);
extern void run_failure_step_aside(int tries);
extern void run_failure_record(Run *run, const ErrorData *error);

/* ------------------------------------------------------------------------
 * current_task.c
 */
extern Run *current_run;

/* ------------------------------------------------------------------------
 * run_steps.c
 */
extern Callback *run_prepare(Run *run);
extern void run_call(Run *run, Callback *callback);
extern void run_show(Run *run);
extern void run_write_outcome(Run *run, bool keep);
extern void run_set(Run *run);

/* ------------------------------------------------------------------------
 * handed.c
 */
extern bool handed_next(const TsReport *reports, int nreports, TsHanded *task,
						TimestampTz *wait_for, bool *ahead);
extern bool handed_look(TimestampTz due, TimestampTz now, TsHanded *task);
extern bool handed_take(int64 id, TimestampTz now);
extern bool handed_has_reports(void);
extern void handed_give_back(const TsReport *reports, int nreports, int64 running_id);

/* ------------------------------------------------------------------------
 * batch.c
 */
/* The runs that shared the transaction of another. */
typedef struct Batch
{
	bool		extending;		/* the first run is over but for its commit */
	int			ntaken;			/* tasks that were taken beside it */
	int			n;				/* that are done, or were not to run */
	TsReport	reports[TS_MAX_TASKS_PER_COMMIT];
	RunStatus	statuses[TS_MAX_TASKS_PER_COMMIT];
	TimestampTz now;			/* a moment ago */
	Run		   *run;			/* of the last one that was begun */
	Callback   *callback;		/* of that; NULL when it is done */
} Batch;

extern bool batch_must_end;
extern void batch_init(void);
extern void batch_learn(Callback *callback, int64 took);
extern bool batch_may_begin(const Run *run, const Callback *callback);
extern void batch_extend(Batch *batch, Run *first);
extern void batch_fall_apart(Batch *batch, int64 first_id, ErrorData *error);

/* ------------------------------------------------------------------------
 * run.c
 */
extern RunStatus run_task(const TsHanded *task, TsReport *report, Batch *batch);

/* ------------------------------------------------------------------------
 * worker.c
 */
extern PGDLLEXPORT void ts_worker_main(Datum main_arg);

#endif							/* TASKSHED_WORKER_WORKER_H */
