/*-------------------------------------------------------------------------
 *
 * shared.h
 *		What all processes share.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_SHARED_SHARED_H
#define TASKSHED_SHARED_SHARED_H

#include "postgres.h"

#include "access/xact.h"
#include "storage/lwlock.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "shared/database_entry.h"
#include "shared/settings.h"
#include "shared/slots.h"
#include "shared/words.h"

/* ------------------------------------------------------------------------
 * shared.c
 */
/*
 * Slots of max_worker_processes that are left to others, the server's logical
 * replication launcher being one of them.
 */
#define TS_SLOTS_LEFT_FREE	2

/* Roles whose tasks are counted at the same time, in all databases. */
#define TS_QUOTAS			1024

/* Tables of the history of runs. */
#define TS_HISTORY_PARTS	8

/* Prepared transactions of which the tasks are known, and how many each may have. */
#define TS_PREPARED			128
#define TS_PREPARED_NOTES	8

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
	slock_t		mutex;			/* protects the next five, and the suspects */
	PGPROC	   *launcher;
	bool		look_around;	/* into all databases, as at its start */
	bool		probed;			/* that was done */
	bool		crowded;		/* a database waits for others to rest */
	XLogRecPtr	flush_to;		/* the launcher is to flush WAL up to here */
	pg_atomic_uint32 role_changes;	/* commits that may concern roles_check */
	pg_atomic_uint32 reloads;	/* that have changed what schedulers look at */
	int			nslots;			/* of workers */
	int			nsuspects;
	Suspect    *suspects;		/* room for one for each worker slot */
	TsDatabase	databases[TS_MAX_DATABASES];
	TsWorker	workers[FLEXIBLE_ARRAY_MEMBER];
} TsShared;

extern TsShared *ts_shared;		/* NULL without preload */

extern void shared_request(void);
extern bool shared_startup(void);
extern void shared_wake_launcher(void);
extern void shared_look_around(void);
extern void shared_ask_flush(XLogRecPtr lsn);
extern XLogRecPtr shared_flush_asked(void);

/* ------------------------------------------------------------------------
 * process.c
 */
/*
 * What our processes decide goes to the log at DEBUG1, what they do with single
 * tasks at DEBUG2, beginning with a word by which it can be found.  The arguments
 * are looked at only if it is written.  Not for what is done with a spinlock held.
 */
#define ts_debug(elevel, ...) \
	ereport(elevel, (errmsg_internal("taskshed: " __VA_ARGS__), errhidestmt(true)))

/*
 * Return how long (us) to wait before what has failed is tried again: 1, 2, 4 ... 64
 * seconds.  failures counts those before this one, in a row.
 */
#define PROCESS_MAX_BACKOFF	(USECS_PER_SEC << 6)

static inline int64
process_backoff(int failures)
{
	return USECS_PER_SEC << Min(failures, 6);
}

/*
 * The longest sleep (ms) of a process that waits for a time of day: a bound on what
 * a jump of the clock can do.  It is more than a minute, so that no minute has two
 * wakeups.
 */
#define PROCESS_MAX_SLEEP	70000

/* Where processes are scarce, one stays this long (us) before it leaves for others. */
#define PROCESS_TURN		USECS_PER_SEC

extern void process_override_setting(const char *name, const char *value);
extern void process_interrupts(void);
extern bool process_has_settings(void);
extern int64 process_ticks(void);
extern bool process_clock_was_set_back(void);

/* ------------------------------------------------------------------------
 * crash_record.c
 */
extern void crash_record_startup(void);
extern void crash_record_note(const Suspect *suspect);
extern void crash_record_clear(void);
extern void crash_record_forget(int slot, int64 id);
extern bool crash_record_take(Oid database, Suspect *suspect);

/* ------------------------------------------------------------------------
 * role_setting.c
 */
extern const char *role_setting(Oid role, const char *name, const char *own);

/* ------------------------------------------------------------------------
 * task_settings.c
 */
extern void task_settings_check(Jsonb *settings, Oid role);
extern void task_settings_apply(Jsonb *settings);

/* ------------------------------------------------------------------------
 * shortage.c
 */
extern void shortage_watch(void);
extern bool shortage_ends_process(int code);
extern bool shortage_caused(const ErrorData *error);

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

extern void roles_watch(void);
extern uint64 roles_generation(void);
extern RoleState roles_check(Oid role, bool *is_superuser);
extern char *roles_reason(Oid role, RoleState state);

#endif							/* TASKSHED_SHARED_SHARED_H */
