/*-------------------------------------------------------------------------
 *
 * commit.h
 *		What a session tells our processes at its commit.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_COMMIT_COMMIT_H
#define TASKSHED_COMMIT_COMMIT_H

#include "postgres.h"

#include "tables/tables.h"

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
extern void notes_add_request(int64 number);
extern void notes_add_gone(TimestampTz run_at, int64 id, Oid owner);
extern void notes_want_scheduler(void);
extern void notes_reread(void);

/* ------------------------------------------------------------------------
 * cancel.c
 */
extern bool cancel_run(int64 id);

/* ------------------------------------------------------------------------
 * changed_roles.c
 */
extern void changed_roles_init(void);
extern void changed_roles_note(const Node *statement);
extern void changed_roles_note_any(void);
extern void changed_roles_tell_all(void);

/* ------------------------------------------------------------------------
 * changed_settings.c
 */
extern void changed_settings_init(void);
extern void changed_settings_note(const Node *statement);
extern void changed_settings_tell_all(void);

/* ------------------------------------------------------------------------
 * database_hold.c
 */
extern void database_hold_init(void);
extern void database_hold_for_drop(Oid database);
extern void database_hold_for_statement(const Node *statement);
extern void database_hold_look_into(Oid database);
extern List *database_hold_end_processes(TsDatabase *db, List *pids, bool *found);

/* ------------------------------------------------------------------------
 * late_from.c
 */
/* A task with catch_up skip starts this late (us) at most, if it does not say. */
#define SKIP_START_WITHIN	USECS_PER_SEC

extern void late_from_init(void);
extern void late_from_commit(AlarmRow *alarm);

#endif							/* TASKSHED_COMMIT_COMMIT_H */
